"""What adapters really ask and what the recordings answer them, scenario by scenario, for an SDK to repeat."""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from adapters.conformance.checks import connection_to, play_turns
from adapters.conformance.playback import PlaybackEgress
from adapters.conformance.recordings import Expectation, recorded_body
from adapters.contract import VendorRef
from tests.adapters.replay import expectations, vendor_of

Json = dict[str, Any]


class Listening(PlaybackEgress):
    """A Playback that keeps each request of the adapter together with the answer that it got."""

    def __init__(self, expectation: Expectation) -> None:
        super().__init__(expectation.exchanges, expectation.document)
        self.heard: list[Json] = []

    def _next_response(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Json:
        response = super()._next_response(method, url, headers, body)
        answer = {
            "status": response["status"],
            "headers": dict(response["headers"]),
            "body": base64.b64encode(recorded_body(response)).decode(),
        }
        path = re.sub(r"^https?://[^/]*", "", url)
        sent = {name.lower(): value for name, value in headers.items()}
        self.heard.append({"method": method, "path": path, "headers": sent, "json": json.loads(body) if body else None, "response": answer})
        return response


async def talk_of(expectation: Expectation) -> Json:
    """One scenario: `{"scenario", "upstream", "exchanges"}`, with what is described and cancelled in it."""
    vendor, listening = vendor_of(expectation.kind), Listening(expectation)
    line = connection_to(vendor, expectation.upstream, listening)
    if "describe" in expectation.document:
        await vendor.describe(line)
    if "turns" in expectation.document:
        await play_turns(vendor, expectation, listening)
    if "cancel" in expectation.document:
        wanted = expectation.document["cancel"]
        await vendor.cancel(VendorRef(wanted.get("context_id", ""), wanted.get("task_id", "")), line)
    return {"scenario": str(expectation), "upstream": expectation.upstream, "exchanges": listening.heard}


async def talks_of(kinds: tuple[str, ...], scenarios: str = "", covers: str = "") -> list[Json]:
    """The scenarios of these kinds whose names begin as `scenarios` has it, with those exchanges alone whose `METHOD path` is covered.

    Raises LookupError where nothing is left.
    """
    talks = [await talk_of(each) for each in expectations() if each.kind in kinds and re.match(scenarios, str(each))]
    for talk in talks:
        talk["exchanges"] = [each for each in talk["exchanges"] if re.match(covers, f"{each['method']} {each['path']}")]
    found = [talk for talk in talks if talk["exchanges"]]
    if not found:
        raise LookupError(f"no recording of {', '.join(kinds)}")
    return found
