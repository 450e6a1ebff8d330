"""Programs of other makers from npm, where node and the packages can be had: installed once, as a lock file with hashes pins them."""

import hashlib
import shutil
import subprocess
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from tests.house.source import ROOT

SECONDS = 120  # that packages may take to come, once


def npm_packages(source: Path, what: str) -> Path:
    """A folder with the packages of `source` and its scripts. Skips where they can't be had, and says what is not tested then."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(f"{what} needs node and npm, and one of them is not here")
    folder = ROOT / "build" / "npm" / source.name
    folder.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "installed"
    with (folder / "lock").open("w") as lock:
        flock(lock, LOCK_EX)  # tests run in several processes
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(source, folder, what)
            stamp.write_text(wanted)
        for script in source.glob("*.mjs"):
            shutil.copy(script, fresh := folder / f"{script.name}.new")
            fresh.replace(folder / script.name)  # another process may be reading it
    return folder


def _install(source: Path, folder: Path, what: str) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, folder / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=15000"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the packages of {what} did not come within {SECONDS} seconds")
    if done.returncode != 0:
        pytest.skip(f"the packages of {what} can't be had: {done.stderr.strip()[-200:]}")
