"""How much slower an honest agent gets while others lie: `python -m tests.bench.faults`. Agents have a process of their own."""

import asyncio
import multiprocessing
import statistics
import tempfile
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

from tests.fakes.a2a_agents import serving
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.upstream import Upstream
from tests.gateway.behaviour.upstreams.test_faulty_agents import Liar, never_ends, never_stops, shouts

LIES = (never_ends, shouts, never_stops)
CALLS = 300
PAUSE = 1.0  # seconds between a lie and the next


def serve_agents(told: Connection) -> None:
    """Tells the URLs of an honest agent and of one for each lie, and serves them until it is ended."""

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(serving(CallbackAgent("honest")))]
            for lie in LIES:
                liar = Liar("JSONRPC", lie, "WORKING")
                liar.upstream = await stack.enter_async_context(Upstream(liar))
                urls.append(liar.upstream.url)
            told.send(urls)
            await asyncio.Event().wait()

    asyncio.run(serve())


async def measure_latency(home: House, token: str) -> list[float]:
    """Seconds of one call after another."""
    times = []
    for _ in range(CALLS):
        began = perf_counter()
        assert "result" in await home.send(token, "honest", "hello")
        times.append(perf_counter() - began)
        await asyncio.sleep(0.002)
    return sorted(times)


async def call_lying_agent(home: House, token: str, name: str) -> None:
    while True:
        message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
        await home.rpc(f"/agents/{name}", token, "SendStreamingMessage", {"message": message}, **{"A2A-Version": "1.0"})
        await asyncio.sleep(PAUSE)


async def measure(urls: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        async with house(path / "home", f"sqlite:///{path / 'interlock.db'}") as home:
            await home.registered("honest", urls[0])
            token = home.token("alice")
            await measure_latency(home, token)
            for lie, url in zip(LIES, urls[1:], strict=True):
                quiet = await measure_latency(home, token)  # just before, since the machine has moods
                print(f"{'nobody lies':<14} p50 {quiet[CALLS // 2] * 1000:6.2f} ms   p99 {quiet[-3] * 1000:6.2f} ms", flush=True)
                name = lie.__name__.replace("_", "-")
                await home.registered(name, url, upstream={"timeout": 4}, facts={"interface": url, "streaming": True})
                lies = asyncio.create_task(call_lying_agent(home, token, name))
                times = await measure_latency(home, token)
                lies.cancel()
                await asyncio.gather(lies, return_exceptions=True)
                more = statistics.median(times) / statistics.median(quiet) - 1
                print(f"{name:<14} p50 {times[CALLS // 2] * 1000:6.2f} ms   p99 {times[-3] * 1000:6.2f} ms   p50 {more:+.0%}", flush=True)


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_agents, args=(theirs,), daemon=True)
    process.start()
    try:
        asyncio.run(measure(ours.recv()))
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
