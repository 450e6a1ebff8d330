"""LlamaIndex's own client, held against the adapter for workflow servers."""

import asyncio
import re
from urllib.parse import parse_qs

import httpx
from llama_agents.client import WorkflowClient

from tests.vendors.sdk.oracle import Json, Oracle, main

RUN = re.compile(r"/workflows/([^/]+)/run-nowait")
SCHEMA = re.compile(r"/workflows/([^/]+)/schema")
KINDS = re.compile(r"/workflows/([^/]+)/events")
EVENTS = re.compile(r"/events/([^/]+)")
HANDLER = re.compile(r"/handlers/([^/]+)")
CANCEL = re.compile(r"/handlers/([^/]+)/cancel")


def repeat(url: str, exchange: Json) -> bool:
    return asyncio.run(_repeated(WorkflowClient(base_url=url), exchange))


async def _repeated(client: WorkflowClient, exchange: Json) -> bool:
    (path, _, query), body = exchange["path"].partition("?"), exchange["json"]
    match exchange["method"], path:
        case "POST", _ if found := RUN.fullmatch(path):
            await client.run_workflow_nowait(found[1], **body)
        case "GET", _ if found := SCHEMA.fullmatch(path):
            await client.get_workflow_schema(found[1])
        case "GET", _ if found := KINDS.fullmatch(path):
            await client.get_workflow_events_schema(found[1])
        case "GET", _ if found := EVENTS.fullmatch(path):
            async for _event in client.get_workflow_events(found[1], after_sequence=int(parse_qs(query)["after_sequence"][0])):
                pass
        case "POST", _ if found := EVENTS.fullmatch(path):
            await client.send_event(found[1], **body)
        case "GET", _ if found := HANDLER.fullmatch(path):
            await client.get_handler(found[1])
        case "POST", _ if found := CANCEL.fullmatch(path):
            await client.cancel_handler(found[1])
        case _:
            return False
    return True


if __name__ == "__main__":
    # members and parameters that the client always sends, each with the value that the server takes where it is missing
    main(Oracle(repeat, unlisted=("context", "include_internal", "purge", "step"), faults=(httpx.HTTPError,)))
