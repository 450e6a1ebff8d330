"""What the product is made of can't be exchanged unseen: locks, their installation, the bill of materials, servers' definitions."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.house.papers import loose_pins
from tests.house.sbom import document, pins
from tests.house.source import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_an_exact_pin_with_hashes_and_no_host(lock: str) -> None:
    """attack SUP-01"""
    text = (ROOT / lock).read_text()
    assert loose_pins(lock, text) == []
    assert all(each.hashes for each in pins(text)) and len(pins(text)) > 50


def wheel(folder: Path) -> tuple[Path, str]:
    """A distribution of one module, and its hash."""
    path = folder / "interlock_probe-1.0-py3-none-any.whl"
    files = {
        "interlock_probe.py": b"VALUE = 1\n",
        "interlock_probe-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: interlock-probe\nVersion: 1.0\n",
        "interlock_probe-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()]
    files["interlock_probe-1.0.dist-info/RECORD"] = "\n".join([*lines, "interlock_probe-1.0.dist-info/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()


def test_setup_refuses_a_distribution_that_is_not_the_locked_one(tmp_path: Path) -> None:
    """attack SUP-01: with the product's own Makefile, from a folder instead of a registry"""
    house, packages = tmp_path / "house", tmp_path / "packages"
    packages.mkdir()
    shutil.copytree(ROOT / ".ci", house / ".ci")
    shutil.copy(ROOT / "Makefile", house / "Makefile")
    _, digest = wheel(packages)
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages), "PIP_CONFIG_FILE": os.devnull}

    def run_make(locked: str) -> subprocess.CompletedProcess[str]:
        (house / "requirements-dev.lock").write_text(locked)
        command = ["make", "UV=", ".venv/locked"]
        return subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True, timeout=300, check=False)

    for wrong in (f"interlock-probe==1.0 \\\n    --hash=sha256:{'0' * 64}\n", "interlock-probe==1.0\n"):
        refused = run_make(wrong)
        assert refused.returncode != 0 and not (house / ".venv" / "locked").exists(), refused.stdout
    assert "HASH" in refused.stderr.upper()
    done = run_make(f"interlock-probe==1.0 \\\n    --hash=sha256:{digest}\n")
    assert done.returncode == 0, done.stderr
    assert list((house / ".venv").rglob("interlock_probe.py"))


def test_each_installation_of_a_lock_asks_for_hashes() -> None:
    """attack SUP-01"""
    for file in ("Makefile", "Dockerfile"):
        lines = [line for line in (ROOT / file).read_text().splitlines() if "install" in line and ("-r $<" in line or ".lock" in line)]
        assert all("--require-hashes" in line for line in lines if "pip install" in line), lines


def test_the_bill_of_materials_is_the_lock() -> None:
    """attack SUP-01: CycloneDX 1.6"""
    text = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run_make = document(text, project)
    assert (run_make["bomFormat"], run_make["specVersion"], run_make["version"]) == ("CycloneDX", "1.6", 1)
    assert run_make == document(text, project) and json.loads(json.dumps(run_make)) == run_make
    components = {each["bom-ref"]: each for each in run_make["components"]}
    assert len(components) == len(pins(text))
    assert all(each["hashes"] and each["purl"].startswith("pkg:") and each["version"] for each in components.values())
    root = run_make["metadata"]["component"]["bom-ref"]
    refs = {each["ref"]: each["dependsOn"] for each in run_make["dependencies"]}
    assert set(refs) == set(components) | {root}
    assert {below for each in refs.values() for below in each} <= set(components)
    assert "pkg:pypi/pydantic-monty@" in str(refs[root])
    reached, waiting = set(), [root]
    while waiting:
        for below in refs[waiting.pop()]:
            if below not in reached:
                reached.add(below)
                waiting.append(below)
    assert reached == set(components)
