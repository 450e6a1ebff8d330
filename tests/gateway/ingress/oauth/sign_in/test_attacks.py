"""Attacks on sign-in: codes, redirects, registrations and refresh tokens in wrong hands."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from adapters.upstream.egress import Egress
from adapters.upstream.http1.responses import HttpResponse
from gateway.ingress.oauth.sign_in.clients.documents import ClientDocuments
from gateway.ingress.oauth.sign_in.clients.store import UnknownClient
from gateway.ingress.oauth.sign_in.tables import sign_in_clients
from policies.ids import now_us
from tests.fakes.house import URL, House, house
from tests.fakes.proofs import Prover
from tests.fakes.sign_in import Browser, Client, is_admitted, link_in, parameters_of, request_in

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def refused(answer: httpx.Response, error: str = "invalid_grant") -> bool:
    return (answer.status_code, answer.json()["error"]) == (400, error)


# attack OAU-01
async def test_a_code_is_used_once_and_its_second_use_ends_what_the_first_gave(home: House) -> None:
    client = Client(home)
    await client.register()
    code = await client.code()
    given = (await client.redeem(code)).json()
    assert await is_admitted(home, given["access_token"], "/mcp")
    assert refused(await client.redeem(code))
    assert not await is_admitted(home, given["access_token"], "/mcp")
    assert refused(await client.refresh(given["refresh_token"]))


# attack OAU-01
async def test_of_several_redemptions_at_once_none_lasts(home: House) -> None:
    client = Client(home)
    await client.register()
    code = await client.code()
    answers = await asyncio.gather(*(client.redeem(code) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers)[1:] == [400, 400, 400]
    for given in (answer.json() for answer in answers if answer.status_code == 200):
        assert not await is_admitted(home, given["access_token"], "/mcp")


@ONE_DATABASE
async def test_a_code_serves_only_its_client_redirect_verifier_and_resource(home: House) -> None:  # attack OAU-01
    client, other = Client(home), Client(home)
    await client.register()
    await other.register()
    code = await client.code()
    other.verifier = client.verifier
    assert refused(await other.redeem(code))
    assert refused(await client.redeem(code, redirect_uri="http://127.0.0.1:43211/callback"))
    assert refused(await client.redeem(code, redirect_uri=""))
    assert refused(await client.redeem(code, code_verifier="another-verifier-of-enough-characters-0123456789"))
    assert refused(await client.redeem(code, code_verifier=""))
    assert refused(await client.redeem(code, resource=f"{URL}/agents/sales"), "invalid_target")
    assert refused(await client.redeem(code + "x")) and refused(await client.refresh(code))
    assert (await client.redeem(code)).status_code == 200


@ONE_DATABASE
async def test_a_code_expires_within_minutes(home: House, monkeypatch: pytest.MonkeyPatch) -> None:  # attack OAU-01
    client = Client(home)
    await client.register()
    code = await client.code()
    monkeypatch.setattr(home.gateway.sign_in_sessions, "_now", lambda: now_us() + 11 * 60 * 1_000_000)
    assert refused(await client.redeem(code))


@ONE_DATABASE
async def test_an_unknown_redirect_is_never_followed(home: House) -> None:  # attack OAU-02
    client = Client(home, redirect="https://app.example.com/cb")
    await client.register()
    for uri in (
        *("https://app.example.com/other", "https://app.example.com:8443/cb", "https://app.example.com/cb#x", "https://evil.test/cb"),
        *("https://app.example.com@evil.test/cb", "https://аpp.example.com/cb", "https://app.example.com/cb?next=https://evil.test", ""),
    ):
        answer = await client.authorize(Browser(home), redirect_uri=uri)
        assert answer.status_code == 400 and "location" not in answer.headers and "evil.test" not in answer.text, uri
    twice = [*client.request().items(), ("redirect_uri", "https://evil.test/cb")]
    answer = await Browser(home).http.get("/oauth/authorize", params=twice)
    assert answer.status_code == 400 and "location" not in answer.headers


@ONE_DATABASE
async def test_errors_do_not_redirect_to_addresses_that_anybody_registered(home: House) -> None:  # attack OAU-02
    client = Client(home, redirect="https://app.example.com/cb")
    await client.register()
    answer = await client.authorize(Browser(home), scope="unknown-scope")
    assert answer.status_code == 400 and "location" not in answer.headers and "http-equiv" not in answer.text
    assert parameters_of(link_in(answer))["iss"] == URL


@ONE_DATABASE
async def test_a_consent_counts_once_and_in_the_browser_that_saw_it(home: House) -> None:  # attack OAU-02
    client, browser, thief = Client(home), Browser(home), Browser(home)
    await client.register()
    page = await client.authorize(browser)
    await client.authorize(thief)
    assert (await thief.consent(page)).status_code == 400
    form = {"request": request_in(page), "login": "development", "user": "alice"}
    foreign = await browser.http.post("/oauth/consent", data=form, headers={"origin": "https://evil.test"})
    assert foreign.status_code == 403
    changed = {**form, "request": f"{form['request'][:-4]}AAAA"}
    assert (await browser.http.post("/oauth/consent", data=changed)).status_code == 400
    assert "code" in parameters_of(link_in(await browser.consent(page)))
    assert (await browser.consent(page)).status_code == 400


@pytest.fixture
async def small(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, sign_in={"clients_max": 5}) as built:
        yield built


async def test_a_flood_of_registrations_is_bounded_and_harms_no_client_in_use(small: House) -> None:  # attack OAU-03
    client = Client(small)
    given = await client.tokens()
    answers = [await Client(small).register() for _ in range(60)]
    assert {answer.status_code for answer in answers} == {201, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    count = await small.gateway.database.read(lambda c: c.execute(select(func.count()).select_from(sign_in_clients)).scalar())
    assert count == 5
    assert (await client.refresh(given["refresh_token"])).status_code == 200 and (await client.authorize(Browser(small))).status_code == 200


@ONE_DATABASE
async def test_registrations_are_small_documents_with_good_redirects(home: House) -> None:  # attack OAU-03
    for body, error in (
        (b"[]", "invalid_client_metadata"),
        (b"{", "invalid_client_metadata"),
        (b'{"redirect_uris": ["https://a.test/cb"], "redirect_uris": []}', "invalid_client_metadata"),
        (json.dumps({"redirect_uris": ["https://a.test/cb"], "client_name": "x" * 20_000}).encode(), "invalid_client_metadata"),
        (b'{"redirect_uris": []}', "invalid_redirect_uri"),
        (b'{"redirect_uris": ["https://a.test/cb", "javascript:alert(1)"]}', "invalid_redirect_uri"),
        (json.dumps({"redirect_uris": ["https://a.test/cb"] * 21}).encode(), "invalid_redirect_uri"),
        (b'{"redirect_uris": ["https://a.test/cb"], "grant_types": ["client_credentials"]}', "invalid_client_metadata"),
    ):
        answer = await home.http.post("/oauth/register", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (400, error), body[:80]


class Documents:
    """The network, with documents by URL; counts fetches."""

    def __init__(self, **documents: Any) -> None:
        self.documents: dict[str, Any] = {f"https://{host.replace('_', '.')}/client": each for host, each in documents.items()}
        self.fetched: list[str] = []

    async def fetch(self, url: str, *, limit: int, timeout: float) -> HttpResponse:  # noqa: ASYNC109 - the port's shape
        self.fetched.append(url)
        document = self.documents.get(url)
        return HttpResponse(302 if document is None else 200, {"location": "https://evil.test"}, json.dumps(document).encode())


def document_of(url: str, **more: Any) -> dict[str, Any]:
    return {"client_id": url, "client_name": "App", "redirect_uris": ["http://localhost/callback"], **more}


async def test_a_metadata_document_has_to_be_the_clients_own() -> None:  # attack OAU-03
    network = Documents(
        good_test=document_of("https://good.test/client"),
        other_test=document_of("https://good.test/client"),
        secret_test=document_of("https://secret.test/client", client_secret="x"),
        method_test=document_of("https://method.test/client", token_endpoint_auth_method="client_secret_post"),
        redirect_test=document_of("https://redirect.test/client", redirect_uris=["ftp://x"]),
    )
    documents = ClientDocuments(network.fetch, frozenset(), lambda: 0.0)
    found = await documents.find("https://good.test/client")
    assert (found.name, found.host) == ("App", "good.test")
    refused_urls = [f"https://{host}.test/client" for host in ("other", "secret", "method", "redirect", "moved")]
    malformed = ["https://good.test", "https://good.test/", "http://good.test/client", "https://good.test/a/../client"]
    for url in (*refused_urls, *malformed, "https://u@good.test/client", "https://good.test/client#x", "https://good.test/" + "a" * 300):
        with pytest.raises(UnknownClient):
            await documents.find(url)
    await documents.find("https://good.test/client")
    assert network.fetched == ["https://good.test/client", *refused_urls], "no malformed URL is fetched, and none twice"


async def test_slow_hosts_hold_the_places_of_their_own_site_only(monkeypatch: pytest.MonkeyPatch) -> None:  # attack OAU-03
    monkeypatch.setattr("gateway.ingress.oauth.sign_in.clients.documents.WAIT_SECONDS", 0.05)
    network, gate, held = Documents(good_test=document_of("https://good.test/client")), asyncio.Event(), []

    async def fetch(url: str, **bounds: Any) -> Any:
        if "slow.test" in url:
            held.append(url)
            await gate.wait()
        return await network.fetch(url, **bounds)

    documents = ClientDocuments(fetch, frozenset(), lambda: 0.0)
    waiting = [asyncio.create_task(documents.find(f"https://h{number}.slow.test/client")) for number in range(40)]
    outcomes = asyncio.gather(*waiting, return_exceptions=True)
    assert (await documents.find("https://good.test/client")).name == "App"
    while sum(task.done() for task in waiting) < 38:
        await asyncio.wait([task for task in waiting if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    assert len(held) == 2
    gate.set()
    assert all(isinstance(each, UnknownClient) for each in await outcomes)


async def test_a_document_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:  # attack OAU-03
    monkeypatch.setattr("gateway.ingress.oauth.sign_in.clients.documents.FETCH_SECONDS", 0.05)

    async def fetch(url: str, **bounds: Any) -> Any:
        await asyncio.Event().wait()

    with pytest.raises(UnknownClient, match="can't be fetched"):
        await ClientDocuments(fetch, frozenset(), lambda: 0.0).find("https://slow.test/client")


async def test_pages_that_begin_a_sign_in_are_limited_by_address(home: House) -> None:
    answers = [(await home.http.get("/connect/x")).status_code for _ in range(40)]
    assert (answers[0], answers[-1]) == (200, 429)


async def test_metadata_documents_come_through_the_egress_guard() -> None:  # attack OAU-03
    async def private(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    egress = Egress(lookup=private)
    documents = ClientDocuments(egress.fetch, frozenset(), lambda: 0.0)
    for url in ("https://inside.test/client", "https://127.0.0.1/client", "https://169.254.169.254/client"):
        with pytest.raises(UnknownClient, match="can't be fetched"):
            await documents.find(url)
    await egress.close()


async def test_an_old_refresh_token_ends_the_whole_family(home: House) -> None:  # attack OAU-04
    client = Client(home)
    first = await client.tokens()
    second = (await client.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"] and await is_admitted(home, second["access_token"], "/mcp")
    assert refused(await client.refresh(first["refresh_token"]))
    assert refused(await client.refresh(second["refresh_token"]))
    for given in (first, second):
        assert not await is_admitted(home, given["access_token"], "/mcp")


@ONE_DATABASE
async def test_a_refresh_token_serves_only_its_client_scope_and_resource(home: House) -> None:  # attack OAU-04
    client, thief = Client(home), Client(home)
    given = await client.tokens(scope="tool:crm.read")
    await thief.register()
    assert refused(await thief.refresh(given["refresh_token"]))
    assert refused(await client.refresh(given["refresh_token"], scope="tool:*"), "invalid_scope")
    assert refused(await client.refresh(given["refresh_token"], resource=f"{URL}/api"), "invalid_target")
    answer = await client.refresh(given["refresh_token"])
    assert (answer.status_code, answer.json()["scope"]) == (200, "tool:crm.read"), "a mistake of its own client does not end it"


@ONE_DATABASE
async def test_a_person_who_is_stopped_signs_in_no_more(home: House) -> None:  # attack OAU-04
    admin = {"authorization": f"Bearer {home.token('admin')}"}
    client = Client(home)
    given = await client.tokens("bob")
    assert (await home.http.post("/api/kill", json={"kind": "user", "name": "bob"}, headers=admin)).status_code in (200, 201)
    await home.gateway.database.refresh_epochs()
    assert not await is_admitted(home, given["access_token"], "/mcp")
    browser = Browser(home)
    told = parameters_of(link_in(await browser.consent(await client.authorize(browser), user="bob")))
    assert told["error"] == "access_denied" and "code" not in told


@ONE_DATABASE
async def test_tokens_of_a_client_with_a_key_need_that_key(home: House) -> None:  # attack OAU-04
    client, prover, thief = Client(home), Prover(time.time), Prover(time.time)
    await client.register()

    async def post(by: Prover | None, **form: str) -> httpx.Response:
        headers = {} if by is None else {"dpop": by.proof("POST", f"{URL}/oauth/token")}
        return await home.http.post("/oauth/token", data={"client_id": client.id, **form}, headers=headers)

    code = {
        "grant_type": "authorization_code",
        "code": await client.code(),
        "redirect_uri": client.redirect,
        "code_verifier": client.verifier,
    }
    stale = {"dpop": prover.proof("POST", f"{URL}/oauth/token", iat=1)}
    again = await home.http.post("/oauth/token", data={"client_id": client.id, **code}, headers=stale)
    assert (again.status_code, again.json()["error"]) == (400, "use_dpop_nonce"), "the code is not used up by a proof that is too old"
    given = (await post(prover, **code)).json()
    assert given["token_type"] == "DPoP" and not await is_admitted(home, given["access_token"], "/mcp")
    refresh = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    assert refused(await post(None, **refresh)) and refused(await post(thief, **refresh))
    assert (await post(prover, **refresh)).json()["token_type"] == "DPoP"
