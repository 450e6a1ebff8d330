"""What the scenarios run on: both vendors' servers, and the gateway that knows each agent twice, by its adapter and by its own A2A."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.interlock import await_ready, send_request
from tests.bench.processes import BenchFailure, Running, environment, run_process, tail_of
from tests.fakes.ports import free_port
from tests.vendors.servers import ADK, HOST, LANGGRAPH

APP = "echo"  # the graph's name, and the app's
PEOPLE = ("alice", "bob")


@dataclass(frozen=True, slots=True)
class Stage:
    """A gateway that is up. `vendors`: the servers by their names; `tokens`: by person."""

    gateway: Running
    vendors: Mapping[str, Running]
    tokens: Mapping[str, str]

    def log(self, vendor: str) -> str:
        """What a vendor's server wrote so far."""
        return self.vendors[vendor].log.read_text(errors="replace")


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """All of it until the block ends. Raises BenchFailure."""
    with ExitStack() as stack:
        vendors = {server.vendor: stack.enter_context(server.running(folder)) for server in (LANGGRAPH, ADK)}
        gateway = stack.enter_context(_serving(folder))
        admin, *tokens = (_token(folder, user) for user in ("admin", *PEOPLE))
        for document in _agents(vendors):
            status, body = send_request(gateway, "/api/agents", admin, document)
            if status != 201 or json.loads(body).get("status") != "active":
                raise BenchFailure(f"{document['name']} was not registered: {status} {body[:1000]!r}\n{tail_of(gateway.log)}")
        yield Stage(gateway, vendors, dict(zip(PEOPLE, tokens, strict=True)))


def _agents(vendors: Mapping[str, Running]) -> Iterator[dict[str, Any]]:
    """As they are registered. The card of LangGraph's own A2A is asked for with its assistant's id."""
    graphs, apps = vendors["langgraph"], vendors["adk"]
    yield {"name": "langgraph", "kind": "langgraph", "url": graphs.url, "upstream": {"assistant": APP}}
    yield {"name": "adk", "kind": "adk", "url": apps.url, "upstream": {"app": APP}}
    yield {"name": "adk-a2a", "url": f"{apps.url}/a2a/{APP}"}
    found = json.loads(send_request(graphs, "/assistants/search", "", {"graph_id": APP})[1])
    yield {"name": "langgraph-a2a", "url": f"{graphs.url}/.well-known/agent-card.json?assistant_id={found[0]['assistant_id']}"}


@contextmanager
def _serving(folder: Path) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--host", HOST, "--port", str(port)]
    with run_process(command, port=port, cwd=folder, log=folder / "gateway.log", env=_settings(folder)) as gateway:
        await_ready(gateway, seconds=60)
        yield gateway


def _token(folder: Path, user: str) -> str:
    command = [sys.executable, "-m", "gateway", "token", "--user", user]
    made = subprocess.run(command, cwd=folder, env=_settings(folder), capture_output=True, text=True, timeout=60)
    if made.returncode:
        raise BenchFailure(f"interlock token failed with {made.returncode}:\n{made.stderr[-2000:]}")
    return made.stdout.strip()


def _settings(folder: Path) -> dict[str, str]:
    return environment(INTERLOCK_HOME=str(folder / "home"))
