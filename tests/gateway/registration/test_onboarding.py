"""What the configuration file names is looked at, in the same way as what comes over HTTP."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from registry.cards.card import Family, RegistrationStatus
from registry.seeds import ConfiguredAgent, ConfiguredServer, EntryUnreachable
from tests.fakes.a2a_agents import serving
from tests.fakes.card_host import CardHost
from tests.fakes.cards import card, card_app
from tests.fakes.house import house
from tests.fakes.mcp_servers import mcp_server
from tests.fakes.timeouts import LONG_TIMEOUTS
from tests.fakes.upstream import Upstream
from tests.fakes.waiting import until


async def test_the_configuration_files_agents_and_servers_are_there_after_the_start(tmp_path: Path, database_url: str) -> None:
    async with serving(card_app("0.3")) as agent, mcp_server("legacy") as (server, _gate):
        agents = [{"name": "sales", "url": agent, "ceiling": ["tool:crm.*"]}, {"name": "gone", "url": "http://127.0.0.1:49150/"}]
        servers = [{"name": "crm", "url": server, "upstream": {"headers": {"X-Key": "k"}}}]
        async with house(tmp_path / "home", database_url, agents=agents, servers=servers) as home:
            found = {entry.name: entry for entry in home.gateway.registry.list("default")}
    assert {name: entry.status for name, entry in found.items()} == {
        "crm": RegistrationStatus.ACTIVE,
        "gone": RegistrationStatus.DOWN,
        "sales": RegistrationStatus.ACTIVE,
    }
    assert (found["sales"].facts["version"], found["sales"].ceiling, found["sales"].family) == ("0.3", ("tool:crm.*",), Family.AGENT)
    assert (found["crm"].facts["era"], len(found["crm"].tools) > 0) == ("legacy", True)


async def test_an_entry_of_the_file_is_tried_again_though_another_one_hangs(tmp_path: Path, database_url: str) -> None:
    async def hang(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()

    gate = asyncio.Event()
    host = CardHost()
    host.status = 503
    async with Upstream(hang) as silent, serving(host) as url:
        agents = [{"name": "hangs", "url": silent.url}, {"name": "late", "url": url}]
        timeouts = replace(LONG_TIMEOUTS, configured_entries=0.1)
        async with house(tmp_path / "home", database_url, timeouts=timeouts, agents=agents) as home:
            await until(lambda: bool(silent.requests) and bool(host.asked))
            host.status = 200
            registry = home.gateway.registry
            await until(lambda: ("late", RegistrationStatus.ACTIVE) in {(entry.name, entry.status) for entry in registry.list("default")})
            assert len(silent.requests) == 1
        gate.set()


@pytest.mark.parametrize(
    ("seed", "why"),
    [
        (ConfiguredAgent("a", "http://127.0.0.1:49150/"), "can't be reached"),
        (ConfiguredAgent("a", "http://10.0.0.1/"), "url is refused"),
        (ConfiguredAgent("a"), "url or card is needed"),
        (ConfiguredAgent("a", card={"name": "A"}), "description is missing"),
        (ConfiguredAgent("a", card=card("https://93.184.215.14/", "1.0"), ceiling=("all",)), "ceiling has an entry"),
        (ConfiguredAgent("a", card=card("https://93.184.215.14/", "1.0"), kind="telepathy"), "kind must be"),
        (ConfiguredServer("s", "http://127.0.0.1:49150/mcp"), "can't be reached"),
        (ConfiguredServer("s"), "url is refused"),
        (ConfiguredServer("s", command="/bin/true"), "No command is configured"),
    ],
)
async def test_a_seed_that_can_not_be_used_says_why(
    tmp_path: Path, sqlite_template: Path, seed: ConfiguredAgent | ConfiguredServer, why: str
) -> None:
    async with house(tmp_path / "home", f"sqlite:///{tmp_path / 'new.db'}") as home:
        with pytest.raises(EntryUnreachable, match=why):
            await home.gateway.onboarding.candidate_from_config(seed)


async def test_an_operators_headers_do_not_follow_a_card_to_another_host(tmp_path: Path, sqlite_template: Path) -> None:
    async with serving(card_app("1.0")) as agent, house(tmp_path / "home", f"sqlite:///{tmp_path / 'new.db'}") as home:
        own, elsewhere = card(agent, "1.0"), card(agent.replace("127.0.0.1", "localhost"), "1.0")
        for document, refused in ((own, False), (elsewhere, True)):
            app = Starlette(routes=[Route("/.well-known/agent-card.json", lambda _request, found=document: JSONResponse(found))])
            async with serving(app) as published:
                seed = ConfiguredAgent("a", published, upstream={"headers": {"X-Key": "k"}})
                if refused:
                    with pytest.raises(EntryUnreachable, match=r"upstream\.headers"):
                        await home.gateway.onboarding.candidate_from_config(seed)
                else:
                    assert await home.gateway.onboarding.candidate_from_config(seed)
