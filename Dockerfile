# The gateway as an image: docker build -t interlock .     (docs/container.md tells how it is run; compose.yaml adds a database and agents)
# Runs with a read-only root file system, here to try it out, with the development issuer and on this machine alone:
#   docker run --rm --name interlock --read-only -v interlock:/data -p 127.0.0.1:8080:8080 -e INTERLOCK_IDENTITY__DEVELOPMENT=on interlock
# For others it stands behind TLS: -e INTERLOCK_SERVER__PUBLIC_URL=https://… and the issuers of interlock.yaml, or it does not start.
# For a release, pin the base by digest: --build-arg BASE=python:3.13-slim@sha256:…, and name the commit that interlock --version shows:
#   --build-arg INTERLOCK_COMMIT=$(git rev-parse HEAD)
ARG BASE=python:3.13-slim

# Our own wheel. The build tool has a lock of its own: pip before 26.1 takes hashes from no constraints.
FROM ${BASE} AS wheel
WORKDIR /src
COPY requirements-build.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-build.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY gateway gateway
COPY adapters adapters
COPY registry registry
COPY policies policies
ARG INTERLOCK_COMMIT=
RUN python -m pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheels .

# The environment: locked dependencies, then the wheel, then no installer any more.
FROM ${BASE} AS environment
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/interlock \
    && /opt/interlock/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY --from=wheel /wheels /wheels
RUN /opt/interlock/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps /wheels/*.whl \
    && /opt/interlock/bin/python -m pip uninstall --yes pip

# The agents of compose.yaml, which are no part of the gateway's image.
FROM ${BASE} AS examples
COPY --from=environment /opt/interlock /opt/interlock
COPY examples /opt/examples/examples
RUN install -d -m 0700 -o 10001 -g 10001 /credentials
ENV PATH=/opt/interlock/bin:$PATH \
    PYTHONPATH=/opt/examples \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INTERLOCK_HOME=/data
WORKDIR /opt/examples
USER 10001
CMD ["python", "-m", "examples.support_agent", "--port", "7001"]

FROM ${BASE} AS gateway
COPY --from=environment /opt/interlock /opt/interlock
RUN install -d -m 0700 -o 10001 -g 10001 /data
ENV PATH=/opt/interlock/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INTERLOCK_HOME=/data
WORKDIR /data
VOLUME /data
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=10s --start-period=20s \
    CMD ["python", "-P", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=9)"]
ENTRYPOINT ["python", "-P", "-m", "gateway"]
CMD ["serve", "--host", "0.0.0.0"]
