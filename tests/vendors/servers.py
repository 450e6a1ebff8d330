"""The vendors' own servers: each in its own virtual environment, on a free port of loopback, over a copy of what it serves."""

import http.client
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.interlock import send_request
from tests.bench.processes import ROOT, BenchFailure, Running, environment, run_process, tail_of
from tests.fakes.ports import free_port

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "vendors"
HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds that a server may take to answer


@dataclass(frozen=True, slots=True)
class Server:
    """`command` is of its environment, and gets host and port; `ready` is a path that answers once it is."""

    vendor: str
    command: Sequence[str]
    ready: str
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        return (BUILD / self.vendor / "installed").exists()

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """Until the block ends. Raises BenchFailure."""
        if not self.installed:
            raise BenchFailure(f"{self.vendor} is not installed in {BUILD.relative_to(ROOT)}: make test-vendors does that")
        port, served = free_port(), folder / self.vendor
        shutil.copytree(HERE / self.vendor, served, ignore=shutil.ignore_patterns("requirements.*", "__pycache__"))
        for card in served.rglob("agent.json"):
            card.write_text(json.dumps({**json.loads(card.read_text()), **_reached(f"http://{HOST}:{port}/a2a/{card.parent.name}")}))
        program, *arguments = self.command
        command = [str(BUILD / self.vendor / "bin" / program), *arguments, "--host", HOST, "--port", str(port)]
        plain = {name: value for name, value in environment(**self.extra).items() if name != "PYTHONPATH"}
        with run_process(command, port=port, cwd=served, log=folder / f"{self.vendor}.log", env=plain) as server:
            self._await(server)
            yield server

    def _await(self, server: Running) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not server.ended:
            try:
                if send_request(server, self.ready)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        raise BenchFailure(f"{self.vendor} does not answer on {server.url}{self.ready}:\n{tail_of(server.log)}")


def _reached(url: str) -> dict[str, object]:
    return {"supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}


LANGGRAPH = Server(
    "langgraph",
    ("langgraph", "dev", "--no-browser", "--no-reload"),
    "/ok",
    {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LOG_COLOR": "false"},
)
ADK = Server("adk", ("adk", "api_server", "--a2a", "."), "/list-apps", {"GOOGLE_API_KEY": "none"})
