"""The outbound stack with OAuth, for tests of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from adapters.upstream.egress import Egress
from tests.fakes.authorization_server import Plain, Ways, authorization_server, protected
from tests.fakes.oauth_bench import Bench


@pytest.fixture
async def ways() -> Ways:
    return Ways()


@pytest.fixture
async def bench(tmp_path: Path, ways: Ways) -> AsyncIterator[Bench]:
    egress = Egress(["127.0.0.1"])
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(authorization_server(ways))
        current = [issuer]
        server = await stack.enter_async_context(protected(Plain(), lambda: current[0]))
        made = Bench(tmp_path, egress, issuer, server)
        made.moved_to = lambda other: current.__setitem__(0, other)  # type: ignore[attr-defined]  # of one test alone
        yield made
        await made.tools.close()
    await egress.close()
