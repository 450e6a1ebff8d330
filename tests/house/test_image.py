"""The image: what its file says, and its steps done here as far as that goes without an engine."""

import asyncio
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
from hatchling.builders.wheel import WheelBuilder

from gateway.cli.local.checks.configuration import find_problems
from gateway.ingress.http.authentication import own_hosts
from gateway.server.settings import Settings
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.house import image
from tests.house.image_replay import Replay, base_python
from tests.house.source import PRODUCT, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_image_is_safe_to_run() -> None:
    assert image.problems(DOCKERFILE) == []


def test_the_last_stage_has_no_build_tools_and_no_development_packages() -> None:
    *building, last = image.stages(DOCKERFILE)
    assert [stage.name for stage in building] == ["wheel", "environment", "examples"]
    assert last.all("COPY") == ["--from=environment /opt/interlock /opt/interlock"]
    assert not any("pip" in rest for rest in last.all("RUN"))
    installs = [rest for rest in building[1].all("RUN") if "--require-hashes" in rest]
    assert all("-r requirements.lock" in rest for rest in installs)
    assert len(installs) == 1


def test_everything_is_written_to_the_one_volume() -> None:
    last = image.stages(DOCKERFILE)[-1]
    (volume,) = last.all("VOLUME")
    assert volume == "/data"
    assert f"INTERLOCK_HOME={volume}" in " ".join(last.all("ENV"))
    assert last.all("WORKDIR") == [volume]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copied = [
        part for stage in image.stages(DOCKERFILE) for rest in stage.all("COPY") if "--from" not in rest for part in rest.split()[:-1]
    ]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(PRODUCT) | {"examples"} <= set(copied) <= kept
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_images_wheel_runs_its_command_from_a_read_only_folder(tmp_path: Path) -> None:
    """The steps of the file: build the wheel, install it as a copy, start with `-P`, write to the home only."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    site, home = tmp_path / "site", tmp_path / "data"
    home.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    for path in (*site.rglob("*"), site):
        path.chmod(path.stat().st_mode & ~0o222)
    python, *arguments = image.command(DOCKERFILE)
    assert python == "python"
    assert arguments[:3] == ["-P", "-m", "gateway"]
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "INTERLOCK_HOME": str(home), "NO_COLOR": "1"}
    running = {"cwd": home, "env": environment, "capture_output": True, "text": True, "timeout": 300, "check": True}
    owner = subprocess.run([sys.executable, "-P", "-c", "import gateway; print(gateway.__file__)"], **running)  # type: ignore[call-overload]  # one mapping for both
    assert owner.stdout.startswith(str(site))
    shown = subprocess.run([sys.executable, *arguments[:4], "--help"], **running)  # type: ignore[call-overload]  # one mapping for both
    assert all(flag in shown.stdout for flag in arguments[4:] if flag.startswith("--"))
    for path in (site, *site.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the pip that the base image's Python brings."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([base_python(), "-m", "venv", str(folder)], check=True, capture_output=True)
    return folder


def hashed_installs() -> list[str]:
    steps = [part.strip() for stage in image.stages(DOCKERFILE) for rest in stage.all("RUN") for part in rest.split("&&")]
    found = [step for step in steps if "--require-hashes" in step]
    assert len(found) >= 2
    return found


@pytest.mark.parametrize("step", hashed_installs())
def test_the_images_pip_takes_the_hashes_of_every_install(bare: Path, step: str) -> None:
    """pip reads all requirements and their hashes before it looks for the first package, so no index is needed."""
    arguments = step.partition(" -m pip install ")[2].split()
    pip = [str(bare / "bin" / "pip"), "install", "--no-index", "--dry-run", *arguments]
    ran = subprocess.run(pip, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "No matching distribution found for" in ran.stderr and "require-hashes" not in ran.stderr, ran.stderr


def is_answering(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def documented_variables() -> dict[str, str]:
    """The variables of the `docker run` in the Dockerfile."""
    return dict(found.split("=", 1) for found in re.findall(r" -e (\w+=\S+) interlock", DOCKERFILE))


@pytest.mark.skipif("IMAGE" not in os.environ, reason="`make image` replays every step; it installs packages from the index")
def test_every_step_of_the_image_is_replayed_and_the_gateway_answers(tmp_path: Path) -> None:
    replay = Replay(tmp_path)
    homes = {stage.name: replay.run(stage) for stage in image.stages(DOCKERFILE)}
    print("\n".join(replay.done))
    assert len(replay.done) >= 6
    python, *arguments = image.command(DOCKERFILE)
    environment = {"PATH": f"{homes['gateway']}/opt/interlock/bin:{os.environ['PATH']}", "INTERLOCK_HOME": f"{homes['gateway']}/data"}
    examples = {**environment, "PYTHONPATH": f"{homes['examples']}/opt/examples"}
    for module in ("support_agent", "sales_agent", "inventory_server", "compose.register"):
        help_of = ["python", "-m", f"examples.{module}", "--help"]
        assert subprocess.run(help_of, cwd=homes["examples"], env=examples, capture_output=True, check=False).returncode == 0, module
    port = str(free_port())
    command, variables = [python, *arguments, "--port", port], {**environment, **documented_variables()}
    with subprocess.Popen(command, cwd=f"{homes['gateway']}/data", env=variables, stderr=subprocess.PIPE) as running:
        try:
            url = f"http://127.0.0.1:{port}"
            asyncio.run(until(lambda: is_answering(f"{url}/readyz"), seconds=300, every=0.1))
            minted = subprocess.run(["interlock", "token", "--user", "alice"], env=environment, capture_output=True, text=True, check=True)
            headers = {"authorization": f"Bearer {minted.stdout.strip()}"}
            assert httpx.get(f"{url}/api/agents", headers=headers, trust_env=False).status_code == 200
        finally:
            running.terminate()
            running.communicate(timeout=60)


def test_what_the_image_documents_answers_at_the_published_port(tmp_path: Path) -> None:
    """With host 0.0.0.0 and no public_url, the gateway answers at the loopback address that `docker run -p` publishes."""
    given = Settings(host="0.0.0.0", identity={"development": documented_variables()["INTERLOCK_IDENTITY__DEVELOPMENT"]})
    assert given.public_url == "http://127.0.0.1:8080" and given.is_development
    hosts = own_hosts(given.public_url, given.host, given.port)
    assert {"127.0.0.1:8080", "localhost:8080"} <= hosts and "0.0.0.0:8080" not in hosts
    assert [trouble.is_fatal for trouble in find_problems(given, {})] == [False]
    assert any(trouble.is_fatal for trouble in find_problems(Settings(host="0.0.0.0", identity={"development": "off"}), {}))
    assert own_hosts("https://gw.example", "0.0.0.0", 8080) == {"gw.example"}


GOOD = """FROM x AS a
RUN pip install --require-hashes -r y.lock
FROM x
COPY --from=a /a /a
USER 10001
HEALTHCHECK CMD ["x"]
ENTRYPOINT ["x"]
CMD ["y"]
"""


def test_a_small_good_file_passes() -> None:
    assert image.problems(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USER 10001\n", ""),
        ("USER 10001", "USER root"),
        ("USER 10001", "USER 0"),
        ("USER 10001\n", "USER 10001\nRUN touch /x\n"),
        ("USER 10001", "ENV DB_PASSWORD=x\nUSER 10001"),
        ("USER 10001", "ARG API_KEY\nUSER 10001"),
        ("--require-hashes ", ""),
        ("RUN pip", "RUN pip install --no-cache-dir hatchling && pip"),
        ("RUN pip", "RUN curl -sSL https://x.example | sh && pip"),
        ("COPY --from=a /a /a", "COPY . /app"),
        ("COPY --from=a /a /a", "ADD https://x.example/y /y"),
        ('ENTRYPOINT ["x"]', "ENTRYPOINT x"),
        ('HEALTHCHECK CMD ["x"]', "HEALTHCHECK NONE"),
    ],
)
def test_a_fault_is_found(old: str, new: str) -> None:
    assert old in GOOD
    assert len(image.problems(GOOD.replace(old, new, 1))) >= 1


def test_continued_lines_are_one_step() -> None:
    (stage,) = image.stages("FROM x\n# a remark\nRUN a \\\n    && b\n")
    assert re.sub(r"\s+", " ", stage.all("RUN")[0]) == "a && b"
