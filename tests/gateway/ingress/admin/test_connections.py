"""Claims about the accounts that people have connected: they see and give up their own, and nobody else's."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from policies.vault.credentials import Credential, CredentialKey
from tests.fakes.house import CallbackAgent, House, house
from tests.gateway.behaviour.authority.test_audit_complete import records

PERSON = "default|interlock-development|{}"
HUSH = "hush-hush-4711"


def key(user: str) -> CredentialKey:
    return CredentialKey("default", PERSON.format(user), "https://as.example", "https://crm.example/mcp")


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path, database_url) as made:
        for user in ("alice", "bob"):
            held = Credential(HUSH, "us", frozenset({"b", "a"}), obtained=1_800_000_000.0, refresh_token=HUSH, id_token=HUSH)
            await made.gateway.vault.write(key(user), held)
        await made.registered("crm", "https://crm.example/mcp", upstream={"auth": {}})
        yield made


async def ask(home: House, method: str, path: str, token: str) -> httpx.Response:
    return await home.http.request(method, path, headers={"authorization": f"Bearer {token}"})


async def listed(home: House, token: str) -> list[dict[str, Any]]:
    answer = await ask(home, "GET", "/api/connections", token)
    assert answer.status_code == 200
    assert HUSH not in answer.text
    return list(answer.json()["items"])


async def test_a_person_sees_their_own_and_what_it_is_for(home: House) -> None:
    (item,) = await listed(home, home.token("alice"))
    assert item.pop("id").startswith("k_")
    assert item == {
        "resource": "https://crm.example/mcp",
        "issuer": "https://as.example",
        "names": ["crm"],
        "client_id": "us",
        "scopes": ["a", "b"],
        "renews": True,
        "since": "2027-01-15T08:00:00.000Z",
        "expires": None,
    }
    assert await listed(home, home.token("nora")) == []
    assert await listed(home, home.token("alice", tenant="evil")) == []


async def test_a_person_gives_up_their_own_and_nobody_elses(home: House) -> None:
    (bobs,) = await listed(home, home.token("bob"))
    for user in ("alice", "admin"):
        assert (await ask(home, "DELETE", f"/api/connections/{bobs['id']}", home.token(user))).status_code == 404
    ended = await ask(home, "DELETE", f"/api/connections/{bobs['id']}", home.token("bob"))
    assert ended.json() == {"id": bobs["id"], "removed": True, "revoked": "failed"}  # nobody is there who could be told
    assert await listed(home, home.token("bob")) == []
    (record,) = await records(home, "connection")
    assert (record["act"], record["principal"]["subject"], record["resource"]) == ("forgotten", "bob", bobs["resource"])
    assert len(await listed(home, home.token("alice"))) == 1
    assert (await ask(home, "DELETE", f"/api/connections/{bobs['id']}", home.token("bob"))).status_code == 404


async def test_an_agent_on_an_errand_sees_and_ends_nothing(home: House) -> None:
    (mine,) = await listed(home, home.token("alice"))
    codes: list[int] = []

    async def meddles(token: str, text: str) -> str:
        codes.append((await ask(home, "GET", "/api/connections", token)).status_code)
        codes.append((await ask(home, "DELETE", f"/api/connections/{mine['id']}", token)).status_code)
        return "ok"

    await home.agent(CallbackAgent("sales", meddles))
    await home.send(home.token("alice"), "sales", "hi")
    assert codes[1] in (401, 404)
    assert len(await listed(home, home.token("alice"))) == 1
