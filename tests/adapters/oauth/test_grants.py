"""Claims about requests to authorization servers."""

import asyncio

import pytest

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import AuthorizationServer
from adapters.oauth.grants import OAuthRequests, OwnClient
from adapters.upstream.egress import Egress
from policies.vault.credentials import ClientRegistration
from tests.fakes.upstream import Upstream, answer

SINGLE = [{"grant_type": "authorization_code", "code": "c"}, {"grant_type": "refresh_token", "refresh_token": "r"}]


@pytest.mark.parametrize(("form", "shown"), [(SINGLE[0], 2), (SINGLE[1], 2), ({"grant_type": "client_credentials"}, 3)])
async def test_what_is_good_for_one_use_is_shown_once_whatever_becomes_of_the_connection(form: dict[str, str], shown: int) -> None:
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
        client = ClientRegistration(at.issuer, "us")
        assert (await requests.request_token(at, client, form, frozenset())).access_token == "t"
        if form in SINGLE:
            with pytest.raises(UpstreamFault):
                await requests.request_token(at, client, form, frozenset())
        else:
            assert (await requests.request_token(at, client, form, frozenset())).access_token == "t"
    assert seen == shown
    await egress.close()


async def test_a_single_use_grant_survives_a_connection_that_the_server_dropped() -> None:
    """On an old connection it could not be told from one that was taken."""
    connections: list[asyncio.StreamWriter] = []

    async def kept(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer in connections:
            writer.transport.abort()  # a second request on the same connection is lost
        else:
            connections.append(writer)
            writer.write(answer(b'{"access_token":"t","token_type":"Bearer"}'))

    egress = Egress(["127.0.0.1"])
    requests = OAuthRequests(egress, OwnClient("", "", "", "", lambda claims, typ: "", lambda: 0.0))
    async with Upstream(kept) as upstream:
        at = AuthorizationServer(upstream.url, f"{upstream.url}/token")
        for _ in range(3):
            assert (await requests.request_token(at, ClientRegistration(at.issuer, "us"), SINGLE[1], frozenset())).access_token == "t"
    assert len(connections) == 3
    await egress.close()
