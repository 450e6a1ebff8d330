"""Two processes on PostgreSQL behind a real nginx, with the configuration that docs/deploy.md installs."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.deploy.nginx import NAME, Proxy, find_nginx, nginx
from tests.fakes.a2a_agents import serving
from tests.fakes.waiting import until
from tests.journeys.kills import Gateway, Upstream, is_ready
from tests.soak.clients import AnyProcessClients
from tests.soak.test_rolling import KINDS

pytestmark = pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")


@dataclass(slots=True)
class Site:
    """Two processes, the proxy in front of them, and clients of the proxy. `direct` reaches a process without the proxy."""

    processes: list[Gateway]
    proxy: Proxy
    clients: AnyProcessClients
    direct: aiohttp.ClientSession
    public: aiohttp.ClientSession

    async def start(self, gateway: Gateway) -> None:
        gateway.start()
        await until(lambda: is_ready(self.direct, gateway), seconds=120, every=0.05)

    async def served_more(self, count: int) -> None:
        seen = self.clients.outcome
        enough = seen.served + len(seen.failed) + count
        await until(lambda: seen.served + len(seen.failed) >= enough, every=0.02)


@asynccontextmanager
async def site(folder: Path, database_url: str) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        upstream_url = await stack.enter_async_context(serving(Upstream()))
        first = Gateway(folder / "home", database_url, upstream_url)
        server = {"public_url": f"https://{NAME}", "trusted_proxies": ["127.0.0.1"], "drain_delay": 1.0}
        first.configure(server=server, identity={"development": "on"})
        processes = [first, first.sibling()]
        proxy = stack.enter_context(nginx(folder / "nginx", [each.port for each in processes]))
        timeout = aiohttp.ClientTimeout(total=60)
        direct = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        connector = aiohttp.TCPConnector(ssl=proxy.trust, limit=0, force_close=True)
        public = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, connector=connector))
        try:
            first.start()
            await until(lambda: is_ready(direct, first), seconds=120, every=0.05)
            clients = AnyProcessClients(proxy.url, NAME, first.tokens(f"https://{NAME}")["first"], public)
            built = Site(processes, proxy, clients, direct, public)
            await built.start(processes[1])
            yield built
        finally:
            for each in processes:
                await asyncio.to_thread(each.stop, signal.SIGKILL)


async def test_processes_behind_the_guides_proxy_are_replaced_without_a_failure(postgres_url: str, tmp_path: Path) -> None:
    async with site(tmp_path, postgres_url) as built:
        load = asyncio.create_task(built.clients.run(6))
        try:
            await built.served_more(30)
            for gateway in built.processes:
                assert await asyncio.to_thread(gateway.stop, signal.SIGTERM) == 0
                await built.start(gateway)
                await built.served_more(30)
        finally:
            built.clients.stop()
            await load
        assert built.clients.outcome.failed == [], built.proxy.errors()
        assert built.clients.outcome.by_kind.keys() == KINDS and built.clients.outcome.reopened >= 1
        plain = f"http://127.0.0.1:{built.proxy.plain}/x"
        async with built.public.get(plain, headers={"host": NAME}, allow_redirects=False) as moved:
            assert (moved.status, moved.headers["location"]) == (301, f"https://{NAME}/x")
