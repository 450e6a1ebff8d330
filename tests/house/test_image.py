"""The image: what its file says, and its steps done here as far as that goes without an engine."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.house import image
from tests.house.source import PRODUCT, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_image_is_safe_to_run() -> None:
    assert image.problems(DOCKERFILE) == []


def test_the_last_stage_has_no_build_tools_and_no_development_packages() -> None:
    *building, last = image.stages(DOCKERFILE)
    assert [stage.name for stage in building] == ["wheel", "environment"]
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
    assert set(PRODUCT) <= set(copied) <= kept
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_wheel_of_the_image_runs_from_a_read_only_folder_with_the_images_command(tmp_path: Path) -> None:
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
