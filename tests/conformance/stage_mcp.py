"""What the MCP kit runs against: the everything-server, the gateway that it is registered with, the shim before the gateway."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.interlock import send_request
from tests.bench.processes import ROOT, BenchFailure, Running, await_port, environment, run_process, tail_of
from tests.conformance.shim import Front, shim
from tests.conformance.stage import address, serving, token
from tests.fakes.ports import free_port

NAME, JOBS, TASKS = "everything", "jobs", "kit-tasks"
TOOLS = ("greet", "slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input", "test_tool_with_task")
DRIVER = f"{sys.executable} -m tests.conformance.mcp_driver"


@dataclass(frozen=True, slots=True)
class Places:
    """Addresses for the kit: of the everything-server, and of the agent whose skills are the tools of the scenarios about tasks."""

    everything: str
    tasks: str


@asynccontextmanager
async def staged(folder: Path, fixture: Path) -> AsyncIterator[Places]:
    """All of it, with authentication on, until the block ends. Raises BenchFailure."""
    at = address(grpc=False)
    with ExitStack() as stack:
        server = stack.enter_context(everything_server(folder, fixture))
        jobs = stack.enter_context(jobs_agent(folder))
        gateway = stack.enter_context(serving(folder, at))
        admin = token(folder, at, "admin")
        _register(gateway, admin, "/api/servers", {"url": f"{server.url}/mcp", "name": NAME})
        _register(gateway, admin, "/api/agents", {"url": jobs.url, "name": JOBS})
        aliases = {name: f"{JOBS}/{name}" for name in TOOLS}
        _register(gateway, admin, "/api/virtual-servers", {"name": TASKS, "tools": list(aliases.values()), "aliases": aliases})
        async with shim(Front(at.public, at.port, token(folder, at, "kit"))):
            yield Places(f"{at.url}/mcp/{NAME}", f"{at.url}/mcp/virtual/{TASKS}")


@contextmanager
def everything_server(folder: Path, fixture: Path) -> Iterator[Running]:
    port, log = free_port(), folder / "everything.log"
    command = [sys.executable, "-m", "tests.conformance.everything", "--port", str(port), "--log-level", "WARNING"]
    paths = environment(PYTHONPATH=f"{ROOT}:{fixture}")
    with run_process(command, port=port, cwd=folder, log=log, env=paths) as running:
        await_port(running, seconds=60)
        yield running


@contextmanager
def jobs_agent(folder: Path) -> Iterator[Running]:
    port, log = free_port(), folder / "jobs.log"
    command = [sys.executable, "-m", "tests.conformance.jobs_agent", "--port", str(port)]
    with run_process(command, port=port, cwd=ROOT, log=log, env=environment()) as running:
        await_port(running, seconds=60)
        yield running


def _register(gateway: Running, admin: str, path: str, document: dict[str, Any]) -> None:
    status, body = send_request(gateway, path, admin, document)
    if status != 201 or json.loads(body).get("status", "active") != "active":
        raise BenchFailure(f"{document['name']} was not registered: {status} {body[:1000]!r}\n{tail_of(gateway.log)}")
