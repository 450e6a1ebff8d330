"""The cards that are published: pure 1.0, both versions for clients of 0.3, signed, and kept by caches."""

import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import rfc8785
from a2a.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.compat.v0_3.types import AgentCard as OldCard
from a2a.types import AgentCard, Message, Part, Role, SendMessageRequest
from google.protobuf.json_format import ParseDict

from policies.keys.signing import SigningKeys
from registry.cards.republish import EXTENSIONS
from tests.fakes.house import CallbackAgent, House, house

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CARD = "/agents/sales/.well-known/agent-card.json"
OLD_CARD = "/agents/sales/.well-known/agent.json"
NEW = {"A2A-Version": "1.0"}


def verified(card: dict[str, Any], keys: SigningKeys) -> bool:
    """Whether our key signed these very members, by the first of the signatures."""
    signature = card["signatures"][0]
    payload = rfc8785.dumps({name: value for name, value in card.items() if name != "signatures"})
    key = jwt.PyJWK(dict(keys.jwks()["keys"][0]))
    token = b".".join([signature["protected"].encode(), jwt.utils.base64url_encode(payload), signature["signature"].encode()])
    try:
        jwt.PyJWS().decode(token, key, ["ES256"])
    except jwt.InvalidSignatureError:
        return False
    return True


@pytest.mark.parametrize("headers", [{"A2A-Version": "1.0"}, {"A2A-Version": "2.0"}])
async def test_a_client_of_1_0_gets_a_card_of_1_0_alone(home: House, headers: dict[str, str]) -> None:
    await home.agent(CallbackAgent("sales"))
    answer = await home.http.get(CARD, headers=headers)
    card = answer.json()
    ParseDict(card, AgentCard())  # refuses every member that 1.0 does not know
    assert [(each["protocolBinding"], each["protocolVersion"]) for each in card["supportedInterfaces"]] == [
        ("JSONRPC", "1.0"),
        ("HTTP+JSON", "1.0"),
    ]
    assert {each["url"] for each in card["supportedInterfaces"]} == {f"{home.url}/agents/sales"}
    capabilities = card["capabilities"]
    assert capabilities["streaming"] and capabilities["pushNotifications"] and capabilities["extendedAgentCard"]
    assert {each["uri"] for each in capabilities["extensions"]} == set(EXTENSIONS)
    assert len(card["signatures"]) == 1 and verified(card, home.gateway.keys) and answer.headers["vary"] == "A2A-Version"


@pytest.mark.parametrize(("path", "version"), [(CARD, None), (CARD, "0.3"), (CARD, "0.3.0"), (OLD_CARD, None), (OLD_CARD, "0.3")])
async def test_a_client_of_0_3_or_of_no_version_gets_a_card_of_both(home: House, path: str, version: str | None) -> None:
    await home.agent(CallbackAgent("sales"))
    answer = await home.http.get(path, headers={"A2A-Version": version} if version else {})
    card = answer.json()
    old = OldCard.model_validate(card)
    assert (old.protocol_version, old.url, old.preferred_transport) == ("0.3.0", f"{home.url}/agents/sales", "JSONRPC")
    assert [each.transport for each in old.additional_interfaces or []] == ["JSONRPC", "HTTP+JSON"]
    assert old.security == [{"bearer": ["agent:sales"]}] and old.security_schemes
    assert old.security_schemes["bearer"].root.type == "http"
    assert [skill.id for skill in old.skills] == ["quote"]
    new = ParseDict(card, AgentCard(), ignore_unknown_fields=True)
    assert [each.protocol_version for each in new.supported_interfaces] == ["1.0", "1.0", "0.3", "0.3"]
    assert verified(card, home.gateway.keys) and not verified({**card, "url": "https://evil.test"}, home.gateway.keys)
    assert answer.headers["etag"] != (await home.http.get(CARD, headers=NEW)).headers["etag"]
    again = await home.http.get(path, headers={**({"A2A-Version": version} if version else {}), "If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_a_version_may_stand_in_the_query(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    assert (await home.http.get(f"{CARD}?A2A-Version=0.3")).json()["protocolVersion"] == "0.3.0"


async def test_the_extensions_of_an_agent_are_declared_beside_ours(home: House) -> None:
    theirs = [
        {"uri": "https://example.org/a", "description": "Does a", "required": True, "params": {"depth": 2}},
        {"uri": "https://example.org/b", "required": False, "params": {"big": 2**60}},
        {"uri": next(iter(EXTENSIONS)), "required": True},
        {"uri": "x" * 300},
        "nonsense",
    ]
    await home.registered("sales", "http://127.0.0.1:9/", capabilities={"extensions": theirs})
    card = (await home.http.get(CARD)).json()
    found = {each.pop("uri"): each for each in card["capabilities"]["extensions"]}
    assert found.pop("https://example.org/a") == {"description": "Does a", "required": True, "params": {"depth": 2}}
    assert found.pop("https://example.org/b") == {}
    assert set(found) == set(EXTENSIONS) and not any("required" in each for each in found.values())
    assert verified((await home.http.get(CARD)).json(), home.gateway.keys)


@pytest.mark.parametrize("validator", ['"x", {}', "W/{}", "{}"])
async def test_a_card_that_is_known_is_not_sent_again(home: House, validator: str) -> None:
    await home.agent(CallbackAgent("sales"))
    tag = (await home.http.get(CARD)).headers["etag"]
    assert (await home.http.get(CARD, headers={"If-None-Match": validator.format(tag)})).status_code == 304
    assert (await home.http.get(CARD, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_a_date_counts_where_no_tag_is_given(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    modified = (await home.http.get(CARD)).headers["last-modified"]
    for date, status in {
        modified: 304,
        "Fri, 01 Jan 2100 00:00:00 GMT": 304,
        "Thu, 01 Jan 1970 00:00:00 GMT": 200,
        "yesterday": 200,
        "Fri, 01 Jan 2100 00:00:00": 200,
        "": 200,
    }.items():
        assert (await home.http.get(CARD, headers={"If-Modified-Since": date})).status_code == status, date
    answer = await home.http.get(CARD, headers={"If-Modified-Since": modified, "If-None-Match": '"other"'})
    assert answer.status_code == 200
    assert (await home.http.get(CARD, headers={"If-None-Match": "*"})).status_code == 304


@pytest.mark.parametrize("path", [CARD, OLD_CARD, "/.well-known/agent-card.json"])
async def test_a_card_is_signed_anew_when_the_key_changes(home: House, path: str) -> None:
    await home.agent(CallbackAgent("sales"))
    before = await home.http.get(path)
    home.gateway.keys.now = lambda: time.time() + 2  # dates count seconds
    home.gateway.keys.rotate()
    after = await home.http.get(path, headers={"If-None-Match": before.headers["etag"]})
    assert (after.status_code, verified(after.json(), home.gateway.keys)) == (200, True)
    assert after.headers["etag"] != before.headers["etag"]
    dated = await home.http.get(path, headers={"If-Modified-Since": before.headers["last-modified"]})
    assert (dated.status_code, dated.headers["etag"]) == (200, after.headers["etag"])


async def test_two_processes_name_one_card_alike(tmp_path: Path, database_url: str, postgres_url: str) -> None:
    async with house(tmp_path / "home", postgres_url) as one, house(tmp_path / "home", postgres_url) as two:
        await one.agent(CallbackAgent("sales"))
        await two.gateway.registry.reload()
        first, second = [await each.http.get(CARD) for each in (one, two)]
    for name in ("etag", "last-modified"):
        assert first.headers[name] == second.headers[name]


@pytest.mark.parametrize(("version", "binding"), [("1.0", "JSONRPC"), ("1.0", "HTTP+JSON"), ("0.3", "JSONRPC"), ("0.3", "HTTP+JSON")])
async def test_a_reference_client_finds_its_way_by_the_card(open_home: House, version: str, binding: str) -> None:
    await open_home.agent(CallbackAgent("sales"))
    headers = {"A2A-Version": version, "Authorization": f"Bearer {open_home.token('alice')}"}
    card = ParseDict((await open_home.http.get(CARD, headers=headers)).json(), AgentCard(), ignore_unknown_fields=True)
    ours = [each for each in card.supported_interfaces if each.protocol_version == version]
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(ours)
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        config = ClientConfig(streaming=False, httpx_client=http, supported_protocol_bindings=[binding])
        async with ClientFactory(config).create(card) as client:
            message = Message(message_id="m1", role=Role.ROLE_USER, parts=[Part(text="hi")])
            answers = [each async for each in client.send_message(SendMessageRequest(message=message))]
    assert answers[-1].task.artifacts[0].parts[0].text == "sales got: hi"
