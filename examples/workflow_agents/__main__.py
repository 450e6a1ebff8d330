"""`python -m examples.workflow_agents`: every agent and tool server of examples/workflows in one process, as interlock.yaml names them."""

import argparse
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from examples.serving import HOST, serve
from examples.workflow_agents import campaign, care, cases, clinic, content, customers, incidents, orders, payments, procurement, shortages
from examples.workflow_agents.scripted import Agent, Server, agent_app, server_app

SCENARIOS = (orders, customers, procurement, campaign, incidents, cases, shortages, payments, clinic, content, care)
PORT = 7100


def build(url: str, names: Collection[str] = ()) -> Starlette:
    """Each agent at `/NAME`, each server at `/NAME/mcp`; those of `names`, or all."""
    every: list[Agent | Server] = [part for scenario in SCENARIOS for part in (*scenario.AGENTS, *scenario.SERVERS)]
    parts = [part for part in every if not names or part.name in names]
    apps = {part.name: agent_app(part, f"{url}/{part.name}/") if isinstance(part, Agent) else server_app(part) for part in parts}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    return Starlette(routes=[Mount(f"/{name}", app) for name, app in apps.items()], lifespan=lifespan)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=PORT)
    port = parser.parse_args().port
    serve(build(f"http://{HOST}:{port}"), port)
