"""Operators are told which upstream can't be reached, and why; everybody else only that it can't."""

import pytest

from gateway.server.configured import build_configured_entries
from gateway.server.settings import Settings
from registry.cards.card import RegistrationStatus
from tests.fakes.house import CallbackAgent, House
from tests.fakes.ports import nowhere
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PUBLIC = "the upstream can't be reached"


@pytest.mark.parametrize(("path", "body"), [("/api/agents", {}), ("/api/servers", {"name": "crm"})])
async def test_an_operator_who_registers_is_told_the_cause(home: House, path: str, body: dict[str, str]) -> None:
    url = nowhere()
    told = await Reception(home).post(path, "admin", url=url, **body)
    assert told.status_code == 502
    assert told.json()["detail"].startswith(f"{PUBLIC}: {url}") and "Connect call failed" in told.json()["detail"]
    others = await Reception(home).post(path, "alice", url=url, **body)
    assert (others.status_code, others.json()["detail"]) == (502, PUBLIC)


async def test_a_secret_in_the_query_is_not_told(home: House) -> None:
    told = await Reception(home).post("/api/servers", "admin", name="crm", url=f"{nowhere()}/mcp?key=s3cret")
    assert "/mcp: " in told.json()["detail"] and "s3cret" not in told.text


async def test_an_operator_who_calls_is_told_the_cause(home: House) -> None:
    url = nowhere()
    await home.server("crm", "read", url=url, ceiling=("*",))
    for user, told in (("admin", f"{PUBLIC}: {url}/mcp: "), ("mel", PUBLIC)):
        message = (await home.call(home.token(user), "/mcp/crm", "read", {})).json()["error"]["message"]
        assert message.startswith(told) and (message == PUBLIC) == (user == "mel")


async def test_lists_and_entries_show_health(home: House) -> None:
    desk, url = Reception(home), nowhere()
    await home.server("crm", "read", url=url)
    await home.registered("sales", nowhere())
    for path, name in (("/api/servers", "crm"), ("/api/agents", "sales")):
        assert [item["healthy"] for item in (await desk.ask("GET", path)).json()["items"]] == [None]
        refreshed = await desk.ask("POST", f"{path}/{name}/refresh")
        assert refreshed.status_code == 502
        assert [item["healthy"] for item in (await desk.ask("GET", path)).json()["items"]] == [False]
        shown = (await desk.ask("GET", f"{path}/{name}")).json()["health"]
        assert (shown["ok"], shown["failures"], shown["problem"]) == (False, 1, PUBLIC)
        assert "Connect call failed" in shown["cause"] and "127.0.0.1" in shown["cause"]
        assert "cause" not in (await desk.ask("GET", f"{path}/{name}", "mel")).json()["health"]


async def test_what_fails_is_listed_wherever_it_stands_among_all(home: House) -> None:
    desk, probes = Reception(home), home.gateway.entry_refresher._probes
    for name in ("a1", "a2", "stopped", "zz"):
        await home.agent(CallbackAgent(name))
    await probes.record_failure(("default", "zz"), PUBLIC)
    killed = await desk.ask("POST", "/api/kill", body={"kind": "agent", "name": "stopped"})
    assert killed.status_code == 201, killed.text
    await home.server("crm", "read", url=nowhere())
    first = (await desk.ask("GET", "/api/agents?failing=true&limit=1")).json()
    rest = (await desk.ask("GET", f"/api/agents?failing=true&limit=1&cursor={first['next']}")).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["stopped", "zz"] and rest["next"] is None
    assert (await desk.ask("GET", "/api/servers?failing=true")).json() == {"items": [], "next": None}
    await desk.ask("POST", "/api/servers/crm/refresh")
    assert [item["name"] for item in (await desk.ask("GET", "/api/servers?failing=true")).json()["items"]] == ["crm"]
    assert (await desk.ask("GET", "/api/agents?failing=true", "nora")).json()["items"] == []
    assert (await desk.ask("GET", "/api/agents?failing=true&q=x")).status_code == 422


async def test_what_answers_is_well(home: House) -> None:
    desk = Reception(home)
    await home.agent(CallbackAgent("sales"))
    await home.gateway.entry_refresher._probes.record_failure(("default", "sales"), PUBLIC, "cause")
    assert [item["healthy"] for item in (await desk.ask("GET", "/api/agents")).json()["items"]] == [False]
    await home.gateway.entry_refresher._probes.record_success(
        ("default", "sales"), await home.gateway.entry_refresher._probes.read_state(("default", "sales"))
    )
    shown = (await desk.ask("GET", "/api/agents/sales")).json()["health"]
    assert (shown["ok"], shown["problem"], shown["cause"]) == (True, "", "")


async def test_what_the_configuration_names_and_nobody_reached_shows_why(home: House) -> None:
    url = nowhere()
    settings = Settings(servers=[{"name": "crm", "url": f"{url}/mcp"}])
    (seed,) = build_configured_entries(settings.agents, settings.servers, settings.virtual)
    seeds = home.gateway.configured_entries._seeds
    assert not await seeds.register(seed)
    assert not await seeds.register(seed)
    assert home.gateway.registry.find("default", "crm").status is RegistrationStatus.DOWN
    shown = (await Reception(home).ask("GET", "/api/servers/crm")).json()["health"]
    assert (shown["ok"], shown["failures"], shown["problem"]) == (False, 1, PUBLIC)
    assert shown["cause"].startswith(f"{url}/mcp: ")
