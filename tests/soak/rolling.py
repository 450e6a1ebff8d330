"""Two processes on PostgreSQL are replaced one after the other while clients call them through a load balancer."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from tests.fakes.a2a_agents import serving
from tests.fakes.waiting import until
from tests.journeys.kills import Gateway, Upstream, is_ready
from tests.soak.balancer import Balancer
from tests.soak.clients import AnyProcessClients

READY_SECONDS = 120


@dataclass(slots=True)
class Pair:
    """Two processes of one gateway, and the clients that call them through the balancer."""

    processes: list[Gateway]
    balancer: Balancer
    clients: AnyProcessClients
    http: aiohttp.ClientSession

    async def start(self, gateway: Gateway) -> None:
        gateway.start()
        await until(lambda: is_ready(self.http, gateway), seconds=READY_SECONDS, every=0.05)
        await until(lambda: gateway.port in self.balancer.ready, every=0.05)

    async def replace(self, gateway: Gateway) -> int:
        """Ends a process as a deployment does, starts it anew, and returns the exit status of the old one."""
        status = await asyncio.to_thread(gateway.stop, signal.SIGTERM)
        await self.start(gateway)
        return status

    async def served_more(self, count: int) -> None:
        """Returns once so many more requests were served."""
        enough = self.clients.outcome.served + len(self.clients.outcome.failed) + count
        await until(lambda: self.clients.outcome.served + len(self.clients.outcome.failed) >= enough, every=0.02)


@asynccontextmanager
async def pair(folder: Path, database_url: str, *, drain_delay: float = 1.0) -> AsyncIterator[Pair]:
    """`drain_delay`: several times as long as the balancer needs to notice that a process is not ready."""
    async with AsyncExitStack() as stack:
        upstream_url = await stack.enter_async_context(serving(Upstream()))
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), connector=connector))
        first = Gateway(folder, database_url, upstream_url)
        first.configure(server={"public_url": first.url, "drain_delay": drain_delay})
        processes = [first, first.sibling()]
        balancer = Balancer([each.port for each in processes])
        url = await stack.enter_async_context(balancer.serving())
        try:
            first.start()
            await until(lambda: is_ready(http, first), seconds=READY_SECONDS, every=0.05)
            clients = AnyProcessClients(url, urlsplit(first.url).netloc, first.tokens()["first"], http)
            built = Pair(processes, balancer, clients, http)
            await built.start(processes[1])
            await until(lambda: first.port in balancer.ready, every=0.05)
            yield built
        finally:
            for each in processes:
                await asyncio.to_thread(each.stop, signal.SIGKILL)


async def roll(built: Pair, clients: int, rounds: int, report: Callable[[str], None] = lambda _: None) -> None:
    """Replaces each process `rounds` times while `clients` clients call. What they saw is in `built.clients.outcome`."""
    load = asyncio.create_task(built.clients.run(clients))
    try:
        await built.served_more(5 * clients)
        for number in range(rounds):
            for gateway in built.processes:
                status = await built.replace(gateway)
                if status:
                    built.clients.outcome.failed.append(f"a process ended with {status}")
                await built.served_more(5 * clients)
                seen = built.clients.outcome
                report(f"  round {number + 1}/{rounds}: {seen.served} requests served, {len(seen.failed)} failed")
    finally:
        built.clients.stop()
        await load
