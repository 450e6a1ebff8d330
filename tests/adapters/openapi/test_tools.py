"""Documents of HTTP APIs are read beside the event loop, and only when they are other than before."""

import asyncio
import json
from typing import Any

import pytest

from adapters.openapi.tools import DocumentUnchanged, OpenApiServers
from adapters.upstream.http1.responses import HttpResponse


class Source:
    """An egress guard that answers every request with one document."""

    def __init__(self, document: Any) -> None:
        self.text = json.dumps(document).encode()

    async def request(self, *_: Any, **__: Any) -> HttpResponse:
        return HttpResponse(200, {}, self.text)


def reader(source: Source) -> OpenApiServers:
    return OpenApiServers(source, lambda: 0.0)  # type: ignore[arg-type]  # only `request` is used


async def test_the_event_loop_goes_on_while_a_large_document_is_read() -> None:
    paths = {f"/{number}": {"get": {"operationId": f"get_{number}", "description": "d" * 2000}} for number in range(2000)}
    reading = asyncio.create_task(reader(Source({"openapi": "3.1.0", "paths": paths})).read("http://api.test/", {}))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert len((await reading).tools) == 2000 and turns > 100


async def test_a_document_that_did_not_change_is_not_read_again() -> None:
    source = Source({"openapi": "3.1.0", "paths": {"/a": {"get": {}}}})
    api = await reader(source).read("http://api.test/", {})
    with pytest.raises(DocumentUnchanged):
        await reader(source).read("http://api.test/", {}, api.digest)
    source.text = source.text.replace(b"/a", b"/b")
    assert (await reader(source).read("http://api.test/", {}, api.digest)).digest != api.digest
