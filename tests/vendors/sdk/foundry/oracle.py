"""Microsoft's own clients and types, held against the adapter for agents of Foundry."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from azure.ai.agentserver.responses.models._generated import types
from azure.ai.projects import AIProjectClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from openai import APIError

from tests.vendors.sdk.oracle import Json, Oracle, events_in, is_stream, main
from tests.vendors.sdk.sdk_types import param_problems

AGENT = re.compile(r"/agents/([^/]+)")
CANCEL = re.compile(r"(.*)/responses/([^/]+)/cancel")
OWN = ("agent_reference",)  # members that the client takes beside those of OpenAI


def repeat(url: str, exchange: Json) -> bool:
    (path, _, query), body = exchange["path"].partition("?"), exchange["json"]
    project = AIProjectClient(url, _NoCredential(), authentication_policy=SansIOHTTPPolicy(), retry_total=0)
    asked = dict(parse_qsl(query))
    if exchange["method"] == "GET" and (found := AGENT.fullmatch(path)):
        project.agents.get(found[1])
        return True
    if path.startswith("/openai/v1/"):
        client = project.get_openai_client(api_key="key", max_retries=0)
    else:
        base = url + path.partition("/responses")[0]
        client = project.get_openai_client(api_key="key", max_retries=0, base_url=base, default_query=asked)
    if found := CANCEL.fullmatch(path):
        client.responses.cancel(found[2])
    elif path.endswith("/responses"):
        extra = {name: body[name] for name in OWN if name in body}
        answer = client.responses.create(**{name: value for name, value in body.items() if name not in OWN}, extra_body=extra)
        for _event in answer if body["stream"] else ():
            pass
    else:
        return False
    return True


class _NoCredential:
    """Signs nobody in: the fake asks for no token."""

    def get_token(self, *_: str, **__: Any) -> Any:
        raise AssertionError("no token is asked for")


def problems(exchange: Json) -> Iterator[str]:
    if not exchange["path"].partition("?")[0].endswith("/responses"):
        return
    yield from param_problems(types.CreateResponse, exchange["json"])
    for event in events_in(exchange["response"]) if is_stream(exchange["response"]) else ():
        if event["type"] == "response.output_item.done":
            told = {name: value for name, value in event["item"].items() if value is not None}  # the SDK's own server writes nulls
            yield from param_problems(types.OutputItem, told, f"the item {told['type']}")


if __name__ == "__main__":
    main(Oracle(repeat, problems, faults=(APIError, HttpResponseError)))
