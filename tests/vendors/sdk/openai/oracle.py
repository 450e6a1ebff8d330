"""OpenAI's own client and types, held against the adapters for Responses, hosted agents and chat completions."""

import re
from collections.abc import Iterator
from typing import Any

from openai import APIError, OpenAI
from openai.types.beta import Agent
from openai.types.beta.agent_session_event import AgentSessionEvent
from openai.types.beta.agents.session_create_params import SessionCreateParamsStreaming
from openai.types.beta.agents.sessions import SessionArtifact, Turn
from openai.types.beta.agents.sessions.event_create_params import EventCreateParams
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming, ResponseCreateParamsStreaming

from tests.vendors.sdk.oracle import Json, Oracle, events_in, is_stream, json_in, main
from tests.vendors.sdk.sdk_types import model_problems, param_problems

EVENTS = re.compile(r"/agents/sessions/([^/]+)/events")
TURN = re.compile(r"/agents/sessions/([^/]+)/turns/([^/]+)")
ARTIFACTS = re.compile(r"/agents/sessions/([^/]+)/artifacts")
CONTENT = re.compile(r"/agents/sessions/([^/]+)/artifacts/([^/]+)/content")
AGENT = re.compile(r"/agents/([^/]+)")
FILE = re.compile(r"/containers/([^/]+)/files/([^/]+)/content")
MODEL = re.compile(r"/models/([^/]+)")
WHOLE = {"/responses": Response, "/chat/completions": ChatCompletion}


def repeat(url: str, exchange: Json) -> bool:
    client = OpenAI(base_url=url, api_key="key", max_retries=0)
    path, body = exchange["path"].partition("?")[0], exchange["json"]
    if path.startswith("/agents/"):
        return _of_agents(client, exchange["method"], path, body)
    match exchange["method"], path:
        case "POST", "/responses":
            _read(client.responses.create(**body))
        case "POST", "/chat/completions":
            _read(client.chat.completions.create(**body))
        case "GET", "/models":
            client.models.list()
        case "GET", _ if found := MODEL.fullmatch(path):
            client.models.retrieve(found[1])
        case "GET", _ if found := FILE.fullmatch(path):
            client.containers.files.content.retrieve(found[2], container_id=found[1]).read()
        case _:
            return False
    return True


def _of_agents(client: OpenAI, method: str, path: str, body: Any) -> bool:
    agents = client.beta.agents
    match method, path:
        case "POST", "/agents/sessions":
            _read(agents.sessions.create(**body))
        case "POST", _ if found := EVENTS.fullmatch(path):
            agents.sessions.events.create(found[1], events=body["events"])
        case "GET", _ if found := EVENTS.fullmatch(path):
            _read(agents.sessions.events.stream(found[1]))
        case "GET", _ if found := TURN.fullmatch(path):
            agents.sessions.turns.retrieve(found[2], session_id=found[1])
        case "GET", _ if found := ARTIFACTS.fullmatch(path):
            agents.sessions.artifacts.list(found[1], limit=100, order="desc")
        case "GET", _ if found := CONTENT.fullmatch(path):
            agents.sessions.artifacts.content(found[2], session_id=found[1]).read()
        case "GET", _ if found := AGENT.fullmatch(path):
            agents.retrieve(found[1])
        case _:
            return False
    return True


def _read(answer: Any) -> None:
    """A stream to its end; anything else is read already."""
    if hasattr(answer, "__iter__") and hasattr(answer, "close"):
        with answer:
            for _ in answer:
                pass


def problems(exchange: Json) -> Iterator[str]:
    path, response = exchange["path"].partition("?")[0], exchange["response"]
    yield from _request_problems(exchange["method"], path, exchange["json"])
    if response["status"] >= 400:
        return
    if is_stream(response):
        model = {"/responses": ResponseStreamEvent, "/chat/completions": ChatCompletionChunk}.get(path, AgentSessionEvent)
        for event in events_in(response):
            yield from (f"{event.get('type')}: {problem}" for problem in model_problems(model, event))
    elif path in WHOLE:
        yield from model_problems(WHOLE[path], json_in(response))
    elif TURN.fullmatch(path):
        yield from model_problems(Turn, json_in(response))
    elif ARTIFACTS.fullmatch(path):
        for artifact in json_in(response)["data"]:
            yield from model_problems(SessionArtifact, artifact)
    elif AGENT.fullmatch(path) and exchange["method"] == "GET":
        yield from model_problems(Agent, json_in(response))


def _request_problems(method: str, path: str, body: Any) -> Iterator[str]:
    if method != "POST":
        return
    if path == "/chat/completions":
        yield from param_problems(CompletionCreateParamsStreaming if body["stream"] else CompletionCreateParamsNonStreaming, body)
    elif path == "/responses":
        yield from param_problems(ResponseCreateParamsStreaming if body.get("stream") else ResponseCreateParamsNonStreaming, body)
    elif path == "/agents/sessions":
        yield from param_problems(SessionCreateParamsStreaming, body)
    elif EVENTS.fullmatch(path):
        yield from param_problems(EventCreateParams, body)


if __name__ == "__main__":
    main(Oracle(repeat, problems, headers=("openai-beta",), faults=(APIError,)))
