"""How agents are reached over TLS: only those whose certificate is good for their name, and by the newest TLS that both speak."""

import ssl
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress
from tests.fakes.a2a_agents import serving
from tests.fakes.certificates import certificate, showing, tls_front, trusting


async def reached(tmp_path: Path, name: str, client: ssl.SSLContext | None = None) -> list[str | None]:
    """The versions of TLS that were spoken to an agent at agent.example whose certificate is for `name`."""

    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    pem, key = certificate(name)
    async with (
        serving(PlainTextResponse("hello")) as url,
        tls_front(showing(tmp_path, pem, key), int(url.strip("/").rpartition(":")[2])) as at,
    ):
        egress = Egress(["127.0.0.1"], lookup=lookup, tls=client or trusting(pem))
        try:
            answer = await egress.fetch(f"https://agent.example:{at.port}/")
        finally:
            await egress.close()
    assert answer.body == b"hello"
    return at.versions


async def test_the_newest_tls_is_spoken(tmp_path: Path) -> None:
    assert await reached(tmp_path, "agent.example") == ["TLSv1.3"]


async def test_another_name_s_certificate_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(UpstreamFault):
        await reached(tmp_path, "other.example")


async def test_a_certificate_that_nobody_vouches_for_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(UpstreamFault):
        await reached(tmp_path, "agent.example", trusting(certificate("agent.example")[0]))
