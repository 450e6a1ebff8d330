"""What the MCP kit runs against: the everything-server, the gateway that it is registered with, the shim before the gateway."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from tests.bench.interlock import asked
from tests.bench.processes import ROOT, BenchFailure, Running, await_port, environment, free_port, started, tail
from tests.conformance.shim import Front, shim
from tests.conformance.stage import address, serving, token

NAME = "everything"
DRIVER = f"{sys.executable} -m tests.conformance.mcp_driver"


@asynccontextmanager
async def staged(folder: Path, fixture: Path) -> AsyncIterator[str]:
    """All of it, with authentication on, until the block ends; gives the server's address. Raises BenchFailure."""
    at = address(grpc=False)
    with ExitStack() as stack:
        server = stack.enter_context(everything_server(folder, fixture))
        gateway = stack.enter_context(serving(folder, at))
        _register(gateway, token(folder, at, "admin"), f"{server.url}/mcp")
        async with shim(Front(at.public, at.port, token(folder, at, "kit"))):
            yield f"{at.url}/mcp/{NAME}"


@contextmanager
def everything_server(folder: Path, fixture: Path) -> Iterator[Running]:
    port, log = free_port(), folder / "everything.log"
    command = [sys.executable, "-m", "tests.conformance.everything", "--port", str(port), "--log-level", "WARNING"]
    paths = environment(PYTHONPATH=f"{ROOT}:{fixture}")
    with started(command, port=port, cwd=folder, log=log, env=paths) as running:
        await_port(running, seconds=60)
        yield running


def _register(gateway: Running, admin: str, url: str) -> None:
    status, body = asked(gateway, "/api/servers", admin, {"url": url, "name": NAME})
    if status != 201 or json.loads(body).get("status") != "active":
        raise BenchFailure(f"{NAME} was not registered: {status} {body[:1000]!r}\n{tail(gateway.log)}")
