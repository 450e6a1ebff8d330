"""The MCP kit: where it and its fixture come from, and one run of it."""

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import environment
from tests.conformance.kit import BUILD, KitMissing, Say
from tests.conformance.report_mcp import Check, Conformity, Leg, Wanted, checks, conformity, wanted

PACKAGE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
NODE = "node@22"  # the kit needs its fs.globSync
REVISIONS = ("2025-11-25", "2026-07-28")
FIXTURE = "examples/servers/everything-server"
VARIABLE, DEFAULT = "MCP_PYTHON_SDK", "mcp-python-sdk"
LIMIT = 600.0  # seconds that one run may take
CLIENT_MS = 120_000  # that one client may take: all are started at once
ABOUT_TASKS = "tasks-"
_DONE = b"Results saved to"


@dataclass(frozen=True, slots=True)
class McpKit:
    """`fixture`: the folder of the everything-server. `folder`: of results and logs."""

    npx: str
    fixture: Path
    folder: Path
    say: Say

    async def wanted(self, revision: str) -> tuple[Wanted, ...]:
        """What a revision requires, and what else is run. Raises KitMissing."""
        log = self.folder / f"list-{revision}.log"
        await self._run(["list", "--requirements", revision], log)
        found = wanted(log.read_text())
        if not found:
            raise KitMissing(f"the MCP kit lists no scenarios for {revision}; its log: {log}")
        return found

    async def server(self, url: str, revision: str, select: str = "") -> dict[str, tuple[Check, ...]]:
        """Every scenario of the revision, or one of them, against the server at `url`. Raises KitMissing."""
        self.say(f"the kit for MCP {revision} runs against {url}" + (f": {select}" if select else ""))
        chosen = ["--scenario", select] if select else ["--requirements", revision]
        return await self._results("server", f"server-{revision}" + (f"-{select}" if select else ""), ["server", "--url", url, *chosen])

    async def client(self, command: str, revision: str) -> dict[str, tuple[Check, ...]]:
        """Every scenario of the revision against the client that `command` runs. Raises KitMissing."""
        self.say(f"the kit for MCP {revision} runs with our client, which may take a minute")
        arguments = ["client", "--command", f'"{command}"', "--requirements", revision, "--timeout", str(CLIENT_MS)]
        return await self._results("client", f"client-{revision}", arguments)

    async def _results(self, leg: Leg, name: str, arguments: Sequence[str]) -> dict[str, tuple[Check, ...]]:
        folder = self.folder / name
        await self._run([*arguments, "-o", str(folder)], self.folder / f"{name}.log")
        if not folder.is_dir():
            raise KitMissing(f"the MCP kit gave no results; its log: {self.folder / name}.log")
        return checks(folder, leg)

    async def _run(self, arguments: Sequence[str], log: Path) -> None:
        """Until it ends; its exit code says no more than its results."""
        line = " ".join(["conformance", *arguments])
        command = [self.npx, "--yes", "-p", NODE, "-p", PACKAGE, "-c", line]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=environment(), stdin=-3, stdout=-1, stderr=-2, start_new_session=True
        )
        try:
            await asyncio.wait_for(self._followed(process, log), LIMIT)
        except TimeoutError:
            raise KitMissing(f"the MCP kit did not end within {LIMIT:.0f} s; its log: {log}") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # npx, the kit and its clients
                await process.wait()

    async def _followed(self, process: asyncio.subprocess.Process, log: Path) -> None:
        assert process.stdout is not None
        done = 0
        with log.open("ab") as sink:
            while data := await process.stdout.read(1 << 16):
                sink.write(data)
                before, done = done, done + data.count(_DONE)
                if done // 10 > before // 10:
                    self.say(f"  {done} scenarios")
        await process.wait()


def find(given: Mapping[str, str], folder: Path, say: Say) -> McpKit:
    """Raises KitMissing."""
    npx = shutil.which("npx", path=given.get("PATH"))
    if npx is None:
        raise KitMissing(
            f"the MCP kit is a package of npm ({PACKAGE}): install Node.js with npx, or leave it out by --only 1.0 or --only 0.3"
        )
    sdk = Path(given.get(VARIABLE) or BUILD / DEFAULT)
    if not (sdk / FIXTURE).is_dir():
        raise KitMissing(
            f"no everything-server for the MCP kit in {sdk}: check out modelcontextprotocol/python-sdk there, "
            f"or set {VARIABLE} to the folder where it is"
        )
    return McpKit(npx, (sdk / FIXTURE).resolve(), folder, say)


async def conformities(kit: McpKit, url: str, tasks: str, command: str, revisions: Sequence[str] = REVISIONS) -> list[Conformity]:
    """Both sides of every revision: the server at `url`, for scenarios about tasks the one at `tasks`, and the client that `command` runs.

    Raises KitMissing.
    """
    found = []
    for revision in revisions:
        asked = await kit.wanted(revision)
        ran = await kit.server(url, revision)
        for name in (one.name for one in asked if one.name.startswith(ABOUT_TASKS)):
            ran |= await kit.server(tasks, revision, name)
        found.append(conformity(revision, "server", asked, ran))
        found.append(conformity(revision, "client", asked, await kit.client(command, revision)))
    return found
