"""What the doctor finds at hosts that the gateway depends on: their certificates, the keys of issuers, and its own address."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from gateway.cli.local.doctor.peers import check_certificates, check_issuers, check_public_address
from gateway.server.settings import Settings
from policies.keys.signing import SigningKeys
from tests.fakes.a2a_agents import serving
from tests.fakes.certificates import certificate, showing, tls_front


def issuer_at(url: str, home: Path) -> Settings:
    issuers = [{"issuer": "https://idp.example", "jwks_url": f"{url}jwks"}]
    return Settings.model_validate({"home": home, "identity": {"issuers": issuers}, "egress": {"allow": ["127.0.0.0/8"]}})


@pytest.mark.parametrize(
    ("ends_in", "is_trusted", "expected"),
    [
        (timedelta(90), True, []),
        (timedelta(1), True, ["certificates.ending"]),
        (timedelta(-1), True, ["certificates.expired"]),
        (timedelta(90), False, ["certificates.untrusted"]),
    ],
)
async def test_a_certificate_is_read_as_a_client_reads_it(
    ends_in: timedelta, is_trusted: bool, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem, key = certificate("127.0.0.1", ends_in=ends_in)
    (tmp_path / "trusted.pem").write_bytes(pem if is_trusted else certificate("other.example")[0])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    async with tls_front(showing(tmp_path, pem, key), 9) as front:
        settings = issuer_at(f"https://127.0.0.1:{front.port}/", tmp_path / "home")
        found = await asyncio.to_thread(lambda: list(check_certificates(settings)))
    assert [finding.id for finding in found] == expected
    assert all(f"127.0.0.1:{front.port}" in finding.detail for finding in found)


def answering(document: object, status: int = 200) -> Any:
    return JSONResponse(document, status)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answering({"keys": [{"kid": "a"}]}), []),
        (answering({"keys": []}), ["issuers.no-keys"]),
        (answering("hello"), ["issuers.no-keys"]),
        (answering({}, 500), ["issuers.unreachable"]),
    ],
)
async def test_an_issuer_needs_keys(answer: Any, expected: list[str], tmp_path: Path) -> None:
    async with serving(answer) as url:
        found = await asyncio.to_thread(lambda: list(check_issuers(issuer_at(url, tmp_path))))
    assert [finding.id for finding in found] == expected


@pytest.mark.parametrize(
    ("publish", "expected"),
    [
        (lambda keys: [{"kid": keys.active_kid}], []),
        (lambda _keys: [{"kid": "of-another"}], ["gateway.wrong-address"]),
    ],
)
async def test_a_gateway_at_the_public_address_has_the_keys_of_the_home(
    publish: Callable[[SigningKeys], list[object]], expected: list[str], tmp_path: Path
) -> None:
    published = {"keys": publish(SigningKeys.open(tmp_path / "home"))}
    async with serving(answering(published)) as url:
        settings = Settings.model_validate({"home": tmp_path / "home", "server": {"public_url": url.rstrip("/")}})
        found = await asyncio.to_thread(lambda: list(check_public_address(settings, is_running=True)))
    assert [finding.id for finding in found] == expected
