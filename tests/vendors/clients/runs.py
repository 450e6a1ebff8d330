"""Runs each client against a gateway with one tool, and says whether the tool was called and its answer arrived."""

import asyncio
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.processes import BenchFailure, environment
from tests.fakes.house import House, open_house
from tests.house.source import ROOT
from tests.vendors.clients.question import ARGUMENTS
from tests.vendors.rows import CLIENT, Row
from tests.vendors.servers import BUILD

GUIDE = ROOT / "docs" / "clients.md"
SECONDS = 240.0  # that one client may take
SCHEMA = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
STOCK = {"sku": "SKU-7", "available": 12}
INSPECTOR = "npx @modelcontextprotocol/inspector"


@dataclass(frozen=True, slots=True)
class Client:
    """A framework, or the inspector. `home` is the folder of its packages."""

    name: str

    @property
    def home(self) -> Path:
        return BUILD / f"client-{self.name}"

    @property
    def is_installed(self) -> bool:
        return (self.home / "installed").exists()

    def command(self) -> list[str]:
        """What asks for the tool."""
        if self.name != "inspector":
            return [str(self.home / "bin" / "python"), "-m", f"tests.vendors.clients.{self.name}_model"]
        program = self.home / "node_modules" / ".bin" / "mcp-inspector"
        lines = re.search(r"```sh inspector\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        assert lines is not None
        return ["bash", "-ec", lines[1].replace(INSPECTOR, str(program))]


CLIENTS = tuple(Client(name) for name in ("inspector", "langgraph", "openai_agents", "pydantic_ai", "adk", "crewai"))


async def asked(clients: Sequence[Client] = CLIENTS) -> list[Row]:
    """A row for each client. Raises BenchFailure where one is not installed."""
    for client in clients:
        if not client.is_installed:
            raise BenchFailure(f"the client {client.name} is not installed in {client.home.relative_to(ROOT)}: make test-vendors does that")
    with tempfile.TemporaryDirectory(prefix="interlock-clients-") as folder:
        async with open_house(Path(folder) / "home", f"sqlite:///{folder}/i.db") as home:
            server: Any = await home.server("inventory", "check_stock", schema=SCHEMA)
            server.result = _answer
            return [Row(client.name, "ask for a tool", CLIENT, await problem_of(client, home, server)) for client in clients]


def _answer(_params: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(STOCK)}], "structuredContent": STOCK, "resultType": "complete"}


async def problem_of(client: Client, home: House, server: Any) -> str:
    """What went wrong; empty where the tool was called once, and the client told what it answered."""
    server.calls.clear()
    code, told = await _run(client.command(), {"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("alice")})
    if code != 0:
        return f"ended with {code}: {told[-800:]}"
    if server.calls != [("check_stock", ARGUMENTS)]:
        return f"called {server.calls}: {told[-800:]}"
    return "" if re.search(r"available\W+12\b", told) else f"the answer did not arrive: {told[-800:]}"


async def _run(command: Sequence[str], told: Mapping[str, str]) -> tuple[int, str]:
    """The exit code and all that was printed. Nothing of the environment sends the client elsewhere or reports on it."""
    quiet = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}
    plain = {name: value for name, value in environment().items() if "proxy" not in name.lower() and name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env={**plain, **quiet, **told}, stdin=-3, stdout=-1, stderr=-2)
    try:
        async with asyncio.timeout(SECONDS):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        return -1, f"took longer than {SECONDS:.0f} s"
    return process.returncode or 0, printed.decode("utf-8", "replace")
