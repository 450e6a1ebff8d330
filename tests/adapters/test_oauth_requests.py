"""Claims about requests to authorization servers."""

import asyncio

from adapters.egress import Egress
from adapters.oauth_discovery import AuthorizationServer
from adapters.oauth_requests import OAuthRequests, OwnClient
from policies.credentials import Client
from tests.fakes.upstream import Upstream, answer


async def test_a_connection_that_the_server_let_go_meanwhile_costs_no_consent() -> None:
    seen = 0

    async def dying(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            writer.transport.abort()
        else:
            writer.write(answer(b'{"access_token":"t","token_type":"Bearer"}'))

    egress = Egress(["127.0.0.1"])
    requests = OAuthRequests(egress, OwnClient("", "", "", "", lambda claims, typ: "", lambda: 0.0))
    async with Upstream(dying) as upstream:
        at = AuthorizationServer(upstream.url, f"{upstream.url}/token")
        for _ in range(2):
            given = await requests.token(at, Client(at.issuer, "us"), {"grant_type": "authorization_code", "code": "c"}, frozenset())
            assert given.access_token == "t"
    assert seen == 3
    await egress.close()
