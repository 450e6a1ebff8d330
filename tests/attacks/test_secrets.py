"""Canaries: secrets that the gateway holds are planted everywhere it is shown some, and looked for wherever it writes or answers."""

import asyncio
import base64
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import inspect, text

from gateway.storage.database import Database
from tests.fakes.authorization_server import Shown, Ways, authorization_server, protected, says
from tests.fakes.house import CallbackAgent, open_house
from tests.gateway.behaviour.upstreams.test_connect import Place, address

CLIENT, HEADER, TOKEN, BEARER = (f"canary-{name}-5f3a+/9c" for name in ("client", "header", "hook", "bearer"))


class Echo(Shown):
    """A server that answers with the credential that it was shown, in results and in errors."""

    def called(self, params: dict[str, Any], shown: str) -> dict[str, Any]:
        secret = shown.partition(" ")[2]
        said = json.dumps([shown, base64.b64encode(shown.encode()).decode(), quote(secret, safe="")])
        self.calls.append(secret)
        if params["name"] == "write":
            return {"error": {"code": -32602, "message": said, "data": {"said": said}}}
        return says(said)


def encodings_of(secret: str) -> list[str]:
    return [secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")]


def find_secrets(secrets: list[str], where: dict[str, str]) -> list[tuple[str, str]]:
    return [(place, form) for place, shown in where.items() for secret in secrets for form in encodings_of(secret) if form in shown]


async def dump_database(database: Database) -> str:
    """All rows of all tables."""

    def rows(connection: Any) -> str:
        names = inspect(connection).get_table_names()
        return "\n".join(repr(connection.execute(text(f'SELECT * FROM "{name}"')).all()) for name in names)

    return await database.read(rows)


# attack LOG-02
async def test_no_secret_is_where_anybody_looks(tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    where: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(open_house(tmp_path / "home", database_url, telemetry={"log_level": "debug", "sample": 1.0}))
        issuer = await stack.enter_async_context(authorization_server(Ways(methods=["client_secret_basic"], registers=False)))
        issuer.clients["us"] = ("client_secret_basic", CLIENT)
        app = Echo()
        server = await stack.enter_async_context(protected(app, lambda: issuer))
        place = Place(home, issuer, server, app)
        ours = {"issuer": issuer.issuer, "client_id": "us", "client_secret": CLIENT}
        needed = (await place.register(**ours)).json()
        await place.connect(address(needed["detail"]), "admin")
        where["registered"] = (await place.register(**ours)).text
        asked = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
        where["page"] = (await place.connect(asked, "alice")).text
        where["result"] = (await place.call()).text
        before = len(app.calls)
        where["error"] = (await home.call(home.token("alice"), "/mcp/inventory", "write", {})).text
        assert len(app.calls) > before
        refreshed = list(issuer.refreshing)
        for token in issuer.tokens.values():
            token.good = False
        where["renewed"] = (await place.call()).text
        sent = await home.send(home.token("alice"), "inventory", "tool: read {}")
        where["task"] = json.dumps(sent)
        task = sent["result"]["task"]["id"]
        where["trace"] = (await place.api("GET", f"/api/tasks/{task}/trace", "alice")).text
        where["events"] = json.dumps(await home.send_get(home.token("alice"), "inventory", task))
        leaky = await home.agent(CallbackAgent("leaky"), upstream={"headers": {"X-Api-Key": HEADER}}, delegation="none")
        leaky.act = lambda _token, _text: received_texts(leaky)
        hook = {"url": f"{server.origin}/hook", "token": TOKEN, "authentication": {"scheme": "Bearer", "credentials": BEARER}}
        configuration = {"taskPushNotificationConfig": hook}
        where["agent"] = json.dumps(await home.send(home.token("alice"), "leaky", "hi", configuration=configuration))
        where["connections"] = (await place.api("GET", "/api/connections", "alice")).text
        where["server"] = (await place.api("GET", "/api/servers/inventory")).text
        where["metrics"] = (await place.api("GET", "/metrics")).text
        where["rows"] = await dump_database(home.gateway.database)
        secrets = [CLIENT, HEADER, TOKEN, BEARER, *issuer.tokens, *issuer.refreshing, *refreshed]
        assert app.calls and all(call in issuer.tokens for call in app.calls)  # it was shown what it echoes
        assert "***" in where["result"] and "***" in where["agent"]
    where["log"] = "".join(capsys.readouterr())
    assert len(where["log"]) > 500
    assert len(secrets) > 8
    assert find_secrets(secrets, where) == []


async def received_texts(agent: CallbackAgent) -> str:
    await asyncio.sleep(0)
    return f"my key is {agent.headers[-1]['x-api-key']}"


def test_a_canary_would_be_found() -> None:
    shown = {"log": f"x{base64.b64encode(CLIENT.encode()).decode()}", "page": quote(HEADER, safe="")}
    assert {place for place, _ in find_secrets([CLIENT, HEADER], shown)} == {"log", "page"}
