"""What is taken back at one process opens nothing at another, whatever an agent shows; and roles are those of the token at hand."""

import asyncio
import base64
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from policies.tables import grants
from registry.cards.card import RegistrationStatus
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.issuer import FakeIssuer, serving
from tests.fakes.waiting import until


async def take_back(at: House, how: str, shown: dict[str, str]) -> None:
    if how == "given back":
        given = shown.get("interlock-ticket") or shown["authorization"].removeprefix("Bearer ")
        assert (await at.http.post("/oauth/revoke", data={"token": given}, auth=at.secrets["support"])).status_code == 200
    elif how == "revoked":
        grant_id = await at.gateway.database.read(lambda connection: connection.execute(select(grants.c.id)).scalar())
        headers = {"authorization": f"Bearer {at.token('alice')}"}
        assert (await at.http.delete(f"/api/grants/{grant_id}", headers=headers)).status_code == 204
    elif how == "suspended":
        await at.gateway.registry.set_status("default", "support", RegistrationStatus.QUARANTINED)
    else:
        entry = at.gateway.registry.find("default", "support")
        await at.gateway.registry.renew_secret("default", entry.name)


@pytest.mark.parametrize(
    ("delegation", "how"),
    [
        ("bearer", "revoked"),
        ("bearer", "given back"),
        ("ticket", "revoked"),
        ("ticket", "given back"),
        ("ticket", "suspended"),
        ("ticket", "a new secret"),
    ],
)
async def test_what_is_taken_back_here_is_refused_there(tmp_path: Path, postgres_url: str, delegation: str, how: str) -> None:
    async with house(tmp_path / "home", postgres_url) as here, house(tmp_path / "home", postgres_url) as there:
        shown: dict[str, str] = {}
        asked, enough = asyncio.Event(), asyncio.Event()

        async def support(token: str, _text: str) -> str:
            if delegation == "ticket":
                pair = base64.b64encode(":".join(here.secrets["support"]).encode()).decode()
                shown.update({"interlock-ticket": agent.headers[-1]["interlock-ticket"], "authorization": f"Basic {pair}"})
            else:
                shown["authorization"] = f"Bearer {await here.exchanged('support', token, '/agents/support', 'agent:support')}"
            asked.set()
            await enough.wait()
            return "done"

        async def opens() -> bool:
            return (await there.http.get("/agents/support/tasks", headers={**shown, "A2A-Version": "1.0"})).status_code == 200

        async def closed() -> bool:
            return not await opens()

        agent = await here.agent(CallbackAgent("support", support), delegation=delegation)
        running = asyncio.create_task(here.send(here.token("alice"), "support", "go"))
        async with asyncio.timeout(60):
            await asked.wait()
        await until(opens, every=0.01)
        await take_back(here, how, shown)
        await until(closed, every=0.01)  # by the next look at the epochs, four a second (tests/gateway/server/test_periodic.py)
        enough.set()
        await running
        assert await closed()


async def test_roles_of_a_provider_are_those_of_the_token_at_hand(tmp_path: Path, postgres_url: str) -> None:
    with serving(FakeIssuer(audience="http://interlock.test", now=time.time)) as issuer:
        identity = {"development": "on", "issuers": [{"issuer": issuer.url, "jwks_url": issuer.jwks_url}]}
        async with house(tmp_path / "home", postgres_url, identity=identity) as home:
            await home.server("inventory", "check", "reserve")
            able, unable = issuer.mint(roles=["sales"]), issuer.mint(roles=["nobody"])
            answers = [(await home.call(token, "/mcp/inventory", "reserve", {})).json() for token in (able, unable, able)]
            assert ["result" in answer for answer in answers] == [True, False, True]
