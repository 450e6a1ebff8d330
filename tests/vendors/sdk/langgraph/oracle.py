"""LangGraph's own client, held against the adapter for Agent Server."""

import re

import httpx
from langgraph_sdk import get_sync_client
from langgraph_sdk.errors import LangGraphError

from tests.vendors.sdk.oracle import Json, Oracle, main

STREAM = re.compile(r"/threads/([^/]+)/runs/stream")
WAIT = re.compile(r"/threads/([^/]+)/runs/wait")
RUN = re.compile(r"/threads/([^/]+)/runs/([^/]+)")
CANCEL = re.compile(r"/threads/([^/]+)/runs/([^/]+)/cancel")


def repeat(url: str, exchange: Json) -> bool:
    client = get_sync_client(url=url, api_key="key")
    path, body = exchange["path"].partition("?")[0], dict(exchange["json"] or {})
    match exchange["method"], path:
        case "POST", "/threads":
            client.threads.create(**body)
        case "POST", "/assistants/search":
            client.assistants.search(**body)
        case "POST", _ if found := STREAM.fullmatch(path):
            for _event in client.runs.stream(found[1], body.pop("assistant_id"), **body):
                pass
        case "POST", _ if found := WAIT.fullmatch(path):
            client.runs.wait(found[1], body.pop("assistant_id"), **body)
        case "POST", _ if found := CANCEL.fullmatch(path):
            client.runs.cancel(found[1], found[2], wait="wait=true" in exchange["path"])
        case "GET", _ if found := RUN.fullmatch(path):
            client.runs.get(found[1], found[2])
        case _:
            return False
    return True


def ended(method: str, path: str) -> Json | None:
    """How the run stands, which the client asks at the end of a stream."""
    return {"status": "success"} if method == "GET" and RUN.fullmatch(path) else None


if __name__ == "__main__":
    unlisted = ("limit", "offset", "stream_subgraphs", "stream_resumable")  # which the client sends with their defaults
    main(Oracle(repeat, unlisted=unlisted, faults=(LangGraphError, httpx.HTTPError), aside=ended))
