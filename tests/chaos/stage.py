"""What one chaos needs: gateway processes on one database, the process that they act on, and a client that outlives all kills."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import text

from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.tokens.verifier import DEVELOPMENT_ISSUER, mint_development_token
from tests.bench.processes import ROOT, environment
from tests.chaos.effects import BLUNT, SERVER, STEADY, card_of
from tests.fakes.waiting import until
from tests.journeys.kills import Gateway, is_ready

OWNER, APPROVER = "first", "admin"
READY_SECONDS = 180.0
ORDER = Path(__file__).with_name("order.yaml")
BROKEN_OFF = (aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.IncompleteReadError)


class NotAnswered(Exception):
    """No process answered a request with what was asked for."""


@dataclass(slots=True)
class Process:
    """One process of the gateway, which is killed and started again. `id` is its name in the database."""

    gateway: Gateway
    id: str = ""


@dataclass(slots=True)
class Stage:
    """The processes of one database. The first one's address is the public one."""

    processes: list[Process]
    effects: Path
    http: aiohttp.ClientSession
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def public_url(self) -> str:
        return self.processes[0].gateway.url

    async def start(self, process: Process) -> None:
        """Starts a process and waits until it is ready."""
        before = self.registered()
        process.gateway.start()
        await until(lambda: is_ready(self.http, process.gateway), seconds=READY_SECONDS, every=0.02)
        (process.id,) = self.registered() - before

    def registered(self) -> set[str]:
        """The processes that the database counts as alive."""
        return {str(each) for each in self.rows("SELECT id FROM processes")}

    def rows(self, query: str, **values: Any) -> list[Any]:
        """What a query finds: the values of its only column, or rows."""
        with self.processes[0].gateway.reading() as connection:
            found = connection.execute(text(query), values).all()
        return [row[0] if len(row) == 1 else row for row in found]

    def left_by(self, process_id: str) -> int:
        """How many tasks still name this process as theirs."""
        return int(self.rows("SELECT count(*) FROM tasks WHERE runner = :runner", runner=process_id)[0])

    def mint_tokens(self) -> None:
        keys = SigningKeys.open(self.processes[0].gateway.data)
        people = {user: Principal("default", DEVELOPMENT_ISSUER, user) for user in (OWNER, APPROVER)}
        self.tokens = {user: mint_development_token(keys, who, self.public_url, None, 12 * 3600) for user, who in people.items()}

    async def ask(self, gateway: Gateway, method: str, path: str, user: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        """One request at one process. Raises what breaks off."""
        headers = {"authorization": f"Bearer {self.tokens[user]}", "host": self.public_url.removeprefix("http://")}
        headers |= {"idempotency-key": key} if key else {}
        async with self.http.request(method, f"{gateway.url}{path}", json=body, headers=headers) as answer:
            said = await answer.read()
            return answer.status, json.loads(said) if said else None

    async def insist(self, method: str, path: str, user: str, body: Any = None, *, key: str = "", seconds: float = READY_SECONDS) -> Any:
        """The answer of any process to a request that may be repeated. Raises NotAnswered."""
        last: Any = None
        with_deadline = asyncio.get_running_loop().time() + seconds
        turn = hash(key) % len(self.processes)
        while asyncio.get_running_loop().time() < with_deadline:
            try:
                status, last = await self.ask(self.processes[turn % len(self.processes)].gateway, method, path, user, body, key)
            except BROKEN_OFF as error:
                status, last = 0, repr(error)
            if 200 <= status < 300:
                return last
            turn += 1
            await asyncio.sleep(0.05)
        raise NotAnswered(f"{method} {path}: {last}")


def workers_of(pid: int) -> list[int]:
    """The processes that evaluate expressions for a gateway."""
    children = [int(child) for listing in Path(f"/proc/{pid}/task").glob("*/children") for child in listing.read_text().split()]
    return [child for child in children if b"expressions/worker.py" in _command_of(child)]


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


@contextmanager
def upstream(folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """The addresses of the process that runs act on, and the file of its effects."""
    effects = folder / "effects.jsonl"
    effects.touch()
    command = [sys.executable, "-m", "tests.chaos.effects", str(effects)]
    with (folder / "effects.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline()), effects
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def stage(folder: Path, database_url: str, count: int) -> AsyncIterator[Stage]:
    """`count` processes on one database, with the workflow published. All of them are killed at the end."""
    with upstream(folder) as (addresses, effects):
        gateway = Gateway(folder / "gateway", database_url, addresses[BLUNT])
        gateway.configure(
            agents=[{"name": name, "card": card_of(name, addresses[name])} for name in (STEADY, BLUNT)],
            servers=[{"name": SERVER, "url": addresses[SERVER]}],
            server={"public_url": gateway.url},
            telemetry={"log_level": "warning"},
        )
        processes = [Process(gateway), *(Process(gateway.sibling()) for _ in range(count - 1))]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20), connector=aiohttp.TCPConnector(limit=0)) as http:
            built = Stage(processes, effects, http)
            try:
                await _begin(built)
                yield built
            finally:
                for process in processes:
                    process.gateway.stop(signal.SIGKILL)


async def _begin(built: Stage) -> None:
    first = built.processes[0]
    first.gateway.start()
    await until(lambda: is_ready(built.http, first.gateway), seconds=READY_SECONDS, every=0.02)
    (first.id,) = built.registered()
    built.mint_tokens()
    for other in built.processes[1:]:
        await built.start(other)
    document = ORDER.read_text(encoding="utf-8")
    status, said = await built.ask(first.gateway, "POST", "/api/workflows", APPROVER, {"document": document})
    if status != 201:
        raise NotAnswered(f"the workflow was not added: {said}")


def kill_process(pid: int) -> None:
    """kill -9 of a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
