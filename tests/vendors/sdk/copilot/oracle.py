"""Microsoft's own client of Copilot Studio, held against the adapter that holds conversations there."""

import asyncio
import base64
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
from microsoft_agents.activity import Activity
from microsoft_agents.copilotstudio.client import ConnectionSettings, CopilotClient, StartRequest
from yarl import URL

from tests.vendors.sdk.activity.oracle import problems_of
from tests.vendors.sdk.oracle import Json, Oracle, events_in, main

HOST = "https://island.environment.api.powerplatform.com"
RECORDED = "http://island.environment.vendor.test"
DISCOVERY = re.compile(r"/copilotstudio/agents/([^/]+)/conversation-endpoints")
DIRECT = re.compile(r"/conversations(?:/([^/]+))?")
DISCOVERED = re.compile(r"(.+/conversations)(?:/([^/?]+))?(\?.*)")
ENDPOINTS: Json = {}  # that the environment tells, to a client that asks for them first


def repeat(url: str, exchange: Json) -> bool:
    return asyncio.run(_repeated(url, exchange))


async def _repeated(url: str, exchange: Json) -> bool:
    (path, _, _), body = exchange["path"].partition("?"), exchange["json"]
    if found := DISCOVERY.fullmatch(path):
        client = CopilotClient(_settings(url, URL(path).parts[3]), "token")
        _move(exchange["response"])
        await client._discover_endpoints()  # what it does by itself before it begins a conversation
        return True
    if found := DIRECT.fullmatch(path):
        client = CopilotClient(ConnectionSettings("", "", direct_connect_url=url), "token")
    elif found := DISCOVERED.fullmatch(exchange["path"]):
        turn = f"{HOST}{found[1]}/{{conversationId}}{found[3]}"
        ENDPOINTS.update(createConversation=f"{HOST}{found[1]}{found[3]}", executeTurn=turn, continueTurn=turn)
        client = CopilotClient(_settings(url, "desk"), "token")
    else:
        return False
    if "activity" in body:
        talk = client.ask_question_with_activity(Activity.model_validate(body["activity"]))
    else:
        talk = client.start_conversation_with_request(StartRequest.model_validate(body))
    async for _activity in talk:
        pass
    return True


def _move(response: Json) -> None:
    """From where the recording has the environment to Microsoft's cloud, since the client takes addresses of https alone."""
    told = base64.b64decode(response["body"]).decode().replace(RECORDED, HOST)
    response["body"] = base64.b64encode(told.encode()).decode()


def _settings(url: str, agent: str) -> ConnectionSettings:
    """Those of an agent in an environment, whose hosts are all the fake."""

    async def to_fake(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        assert request.url.scheme == "https" and (request.url.host or "").endswith(".environment.api.powerplatform.com")
        request.url = URL(url + request.url.raw_path_qs, encoded=True)
        return await handler(request)

    return ConnectionSettings("Default-0123456789abcdef0123456789abcdef", agent, client_session_settings={"middlewares": (to_fake,)})


def told(method: str, path: str) -> Any:
    """What a client asks before its turn."""
    return dict(ENDPOINTS) if (method, bool(DISCOVERY.fullmatch(path))) == ("GET", True) and ENDPOINTS else None


def problems(exchange: Json) -> Iterator[str]:
    if exchange["json"] and "activity" in exchange["json"]:
        yield from problems_of(exchange["json"]["activity"], "the activity that is sent")
    if not DISCOVERY.fullmatch(exchange["path"]) and exchange["response"]["status"] == 200:
        for activity in events_in(exchange["response"], "activity"):
            yield from problems_of(activity, "an activity that is told")


if __name__ == "__main__":
    main(Oracle(repeat, problems, aside=told, faults=(aiohttp.ClientError,)))
