"""Anthropic's own client and types, held against the adapter for managed agents."""

import re
from collections.abc import Iterator

from anthropic import Anthropic, APIError
from anthropic.types.beta import BetaManagedAgentsAgent, BetaManagedAgentsSession
from anthropic.types.beta.session_create_params import SessionCreateParams
from anthropic.types.beta.sessions import BetaManagedAgentsStreamSessionEvents
from anthropic.types.beta.sessions.event_send_params import EventSendParams

from tests.vendors.sdk.oracle import Json, Oracle, events_in, is_stream, json_in, main
from tests.vendors.sdk.sdk_types import model_problems, param_problems

SESSION = re.compile(r"/v1/sessions/([^/]+)")
EVENTS = re.compile(r"/v1/sessions/([^/]+)/events")
STREAM = re.compile(r"/v1/sessions/([^/]+)/events/stream")
AGENT = re.compile(r"/v1/agents/([^/]+)")


def repeat(url: str, exchange: Json) -> bool:
    client = Anthropic(base_url=url, api_key="key", max_retries=0).beta
    (path, _, query), body = exchange["path"].partition("?"), exchange["json"]
    match exchange["method"], path:
        case "POST", "/v1/sessions":
            client.sessions.create(**body)
        case "GET", _ if found := STREAM.fullmatch(path):
            deltas = {"event_deltas": ["agent.message"]} if query else {}
            with client.sessions.events.stream(found[1], **deltas) as events:
                for _event in events:
                    pass
        case "POST", _ if found := EVENTS.fullmatch(path):
            client.sessions.events.send(found[1], events=body["events"])
        case "GET", _ if found := SESSION.fullmatch(path):
            client.sessions.retrieve(found[1])
        case "GET", _ if found := AGENT.fullmatch(path):
            client.agents.retrieve(found[1])
        case _:
            return False
    return True


def problems(exchange: Json) -> Iterator[str]:
    path, response = exchange["path"].partition("?")[0], exchange["response"]
    if exchange["method"] == "POST":
        yield from param_problems(SessionCreateParams if path == "/v1/sessions" else EventSendParams, exchange["json"])
    if response["status"] >= 400:
        return
    if is_stream(response):
        for event in events_in(response):
            yield from (f"{event.get('type')}: {problem}" for problem in model_problems(BetaManagedAgentsStreamSessionEvents, event))
    elif path == "/v1/sessions" or SESSION.fullmatch(path):
        yield from model_problems(BetaManagedAgentsSession, json_in(response))
    elif AGENT.fullmatch(path):
        yield from model_problems(BetaManagedAgentsAgent, json_in(response))


if __name__ == "__main__":
    main(Oracle(repeat, problems, headers=("anthropic-beta", "anthropic-version"), faults=(APIError,)))
