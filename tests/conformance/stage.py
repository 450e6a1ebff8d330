"""What the kit runs against: the example agent, the gateway that it is registered with, the shim before the gateway."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.interlock import await_ready, send_request
from tests.bench.processes import ROOT, BenchFailure, Running, await_port, environment, run_process, tail_of
from tests.conformance.shim import HOST, Front, shim
from tests.fakes.ports import free_port

NAMES = {
    "": "conformance",
    **{f"/{kind}": f"conformance-{kind}" for kind in ("bare", "strict", "open")},
}  # path at the example agent -> name here


@dataclass(frozen=True, slots=True)
class Address:
    """The gateway's ports, and those of the shim, which are the public ones. 0: gRPC is off."""

    port: int
    public: int
    grpc: int = 0
    public_grpc: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.public}"

    def sut(self, path: str) -> str:
        """Below this the kit finds the card."""
        return f"{self.url}/agents/{NAMES[path]}"


def address(grpc: bool) -> Address:
    return Address(free_port(), free_port(), *((free_port(), free_port()) if grpc else ()))


@asynccontextmanager
async def staged(folder: Path, grpc: bool) -> AsyncIterator[Address]:
    """All of it, with authentication on, until the block ends. Raises BenchFailure."""
    at = address(grpc)
    with ExitStack() as stack:
        agent = stack.enter_context(example_agent(folder))
        gateway = stack.enter_context(serving(folder, at))
        _register(gateway, token(folder, at, "admin"), agent)
        grpc_ports = (at.public_grpc, at.grpc) if grpc else None
        front = Front(at.public, at.port, token(folder, at, "kit"), NAMES[""], grpc_ports, at_root=NAMES["/open"])
        async with shim(front):
            yield at


@contextmanager
def example_agent(folder: Path, grpc_port: int = 0) -> Iterator[Running]:
    port, log = free_port(), folder / "agent.log"
    command = [sys.executable, "-m", "tests.conformance.agent", "--port", str(port), "--grpc-port", str(grpc_port)]
    with run_process(command, port=port, cwd=ROOT, log=log, env=environment()) as running:
        await_port(running, seconds=60)
        yield running


@contextmanager
def serving(folder: Path, at: Address) -> Iterator[Running]:
    """The gateway, ready."""
    command = [sys.executable, "-m", "gateway", "serve", "--host", HOST, "--port", str(at.port), "--grpc-port", str(at.grpc)]
    with run_process(command, port=at.port, cwd=folder, log=folder / "gateway.log", env=_settings(folder, at)) as running:
        await_ready(running)
        yield running


def token(folder: Path, at: Address, user: str) -> str:
    """From the command line. Raises BenchFailure."""
    command = [sys.executable, "-m", "gateway", "token", "--user", user]
    done = subprocess.run(command, cwd=folder, env=_settings(folder, at), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise BenchFailure(f"interlock token failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def _settings(folder: Path, at: Address) -> dict[str, str]:
    """Shipped defaults, but for the public addresses, which are the shim's."""
    grpc = {"INTERLOCK_SERVER__PUBLIC_GRPC": f"{HOST}:{at.public_grpc}"} if at.grpc else {}
    return environment(INTERLOCK_HOME=str(folder / "home"), INTERLOCK_SERVER__PUBLIC_URL=at.url, **grpc)


def _register(gateway: Running, admin: str, agent: Running) -> None:
    for path, name in NAMES.items():
        status, body = send_request(gateway, "/api/agents", admin, {"url": f"{agent.url}{path}", "name": name})
        if status != 201 or json.loads(body).get("status") != "active":
            raise BenchFailure(f"{name} was not registered: {status} {body[:1000]!r}\n{tail_of(gateway.log)}")
