"""Clients of other makers, each a process of its own, that sign a person in: the person's browser opens the pages that they name."""

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest

from tests.fakes.house import House
from tests.fakes.npm import npm_packages
from tests.fakes.sign_in import Browser, link_in
from tests.house.source import ROOT

CLIENTS: Final = ROOT / "tests" / "gateway" / "oauth" / "clients"
FASTMCP: Final = ROOT / "build" / "vendors" / "fastmcp"
INSTALL_SECONDS: Final = 300.0
SECONDS: Final = 60.0  # that a client may take


class ClientRun(NamedTuple):
    """What became of a client. `pages` are those that it showed to its person."""

    code: int | None
    result: str
    said: str
    pages: list[str]


def typescript_clients(what: str) -> Path:
    """A folder with the TypeScript SDKs and Inspector. Skips where they can't be had."""
    return npm_packages(CLIENTS, what)


def fastmcp_python() -> Path:
    """The interpreter that has fastmcp, installed once from its lock. Skips where it can't be had."""
    FASTMCP.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    with (FASTMCP.parent / "fastmcp.lock").open("w") as lock:
        flock(lock, LOCK_EX)  # tests run in several processes
        command = ["make", "-s", f"{FASTMCP.relative_to(ROOT)}/installed"]
        try:
            made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except (subprocess.TimeoutExpired, FileNotFoundError) as error:
            pytest.skip(f"fastmcp can't be installed: {error}")
    if made.returncode != 0:
        pytest.skip(f"fastmcp can't be installed: {made.stderr.strip()[-200:]}")
    return FASTMCP / "bin" / "python"


async def run_client(home: House, folder: Path, *command: str, environment: Mapping[str, str]) -> ClientRun:
    """Runs a client to its end. Its person is alice, who consents to everything."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**os.environ, **environment}, stdin=-3, stdout=pipe, stderr=pipe
    )
    pages: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            assert process.stdout is not None and process.stderr is not None
            result = asyncio.create_task(process.stdout.read())
            said = await _follow(home, process.stderr, pages)
            return ClientRun(await process.wait(), (await result).decode(), said, pages)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _follow(home: House, lines: asyncio.StreamReader, pages: list[str]) -> str:
    """All that a client says. The person opens each page, consents, and comes back to where the client listens."""
    said = ""
    async for line in lines:
        said += line.decode()
        if (found := re.search(r"http\S+/oauth/authorize\?\S+", line.decode())) is None:
            continue
        pages.append(found[0])
        person = Browser(home)
        answer = link_in(await person.consent(await person.http.get(found[0])))
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(answer)).is_success, said
    return said
