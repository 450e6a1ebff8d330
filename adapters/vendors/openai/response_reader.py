"""The answer of OpenAI Responses, as a stream of events or whole: texts as artifacts, open calls and approvals as prompts, one ending."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from adapters.contract import ENDINGS, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, Ref, VendorRef
from adapters.task import Artifact, Part
from adapters.vendors.openai.items import approval, consent, is_aside, is_structured, open_call, outputs_of, refusal_in, usage_of
from adapters.vendors.sdk.agent import said
from adapters.vendors.sdk.connection import Line, Request
from adapters.vendors.sdk.frames import Frame, JsonBody, SseFrame
from adapters.vendors.sdk.model_failures import FOREIGN, REFUSED, failure_in, failure_of

JOIN_SECONDS: Final = 2.0  # between two questions how a response stands that another process began
CALLS: Final = ("function_call", "custom_tool_call")  # whose results the caller gives
UNANSWERABLE: Final = ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")


class ResponseReader:
    """Of a stream of events, or of a whole response. `session` is what the next turn goes on from, where responses are not that."""

    def __init__(self, session: str = "", devui: bool = False) -> None:
        self._session = session
        self._devui = devui
        self._run = ""
        self._structured = False
        self._aside: set[str] = set()  # items that are not the answer
        self._streamed: dict[str, str] = {}
        self._whole: set[str] = set()
        self._open: dict[str, Prompt] = {}
        self._foreign: dict[str, str] = {}  # kinds of calls that the client has to carry out, by their ids
        self._refusal = ""

    def take(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, JsonBody):
            yield from self._ended(frame.value)
        elif isinstance(frame, SseFrame) and frame.data != "[DONE]":
            yield from self._event(frame.json())

    def _event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event:
            case {"type": "response.created" | "response.in_progress", "response": response}:
                yield from self._named(response)
            case {"type": "response.output_item.added", "item": item} if is_aside(item):
                self._aside.add(item["id"])
            case {"type": "response.output_text.delta", "item_id": name, "delta": text}:
                yield from self._delta(name, text)
            case {"type": "response.output_item.done", "item": item}:
                yield from self._item(item)
            case {"type": "response.completed" | "response.failed" | "response.incomplete", "response": response}:
                yield from self._ended(response)
            case _:
                yield from _broken(event)

    def _delta(self, name: str, text: str) -> Iterator[Event]:
        if name not in self._aside and not self._structured:
            yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._streamed, last_chunk=False)
            self._streamed[name] = self._streamed.get(name, "") + text

    def _named(self, response: Mapping[str, Any]) -> Iterator[Event]:
        self._structured = is_structured(response)
        if response["id"] != self._run:
            self._run = response["id"]
            yield Ref(VendorRef(self._session, self._run))

    def _ended(self, response: Mapping[str, Any]) -> Iterator[Event]:
        yield from self._named(response)
        status, error = response["status"], response.get("error")
        if status == "failed" or error:
            yield failure_in(error)
        elif status == "cancelled":
            yield Canceled()
        elif status in ("completed", "incomplete"):
            for item in response["output"]:
                yield from self._item(item)
            ending = self._ending(response)
            answered = isinstance(ending, Done) or (isinstance(ending, Failed) and ending.rejected)
            if status == "completed" and answered and not self._devui:  # a response with an open call takes its result alone
                yield Ref(VendorRef(self._run, self._run))
            yield ending

    def _ending(self, response: Mapping[str, Any]) -> Event:
        if response["status"] == "incomplete":
            why = str((response.get("incomplete_details") or {}).get("reason"))
            return failure_of("content_filter" if why == "content_filter" else "length", why)
        if self._refusal:
            return Failed(REFUSED, said(self._refusal), rejected=True)
        if self._foreign:
            return Failed(FOREIGN, detail=", ".join(self._foreign.values()))
        if self._open:
            return Ask(prompts=tuple(self._open.values()))
        return Done(metadata=usage_of(response.get("model"), response.get("usage")))

    def _item(self, item: Mapping[str, Any]) -> Iterator[Event]:
        """Once each, though the end of a stream tells all of them again."""
        kind, name = item["type"], str(item.get("id") or item.get("call_id") or "answer")
        if name in self._whole:
            return
        self._whole.add(name)
        if kind == "mcp_approval_request":
            self._open[name] = approval(name, item)
        elif kind == "oauth_consent_request":
            self._open[name] = consent(name, item)
        elif kind in CALLS and not self._devui:  # DevUI does them itself
            self._open[item["call_id"]] = open_call(item, token=kind)
        elif kind.endswith("_output"):
            self._open.pop(item.get("call_id", ""), None)
            self._foreign.pop(item.get("call_id") or name, None)
        elif kind in UNANSWERABLE or (kind == "tool_search_call" and item.get("execution") == "client"):
            self._foreign[item.get("call_id") or name] = kind
        else:
            self._refusal = self._refusal or refusal_in(item)
            yield from outputs_of(name, item, self._streamed, self._structured)


async def asked_again(ref: VendorRef, line: Line[Any], path: str) -> AsyncGenerator[Event, None]:
    """What a response in the background comes to that another process began: asks how it stands until it is over."""
    reader = ResponseReader(ref.context_id)
    async with aclosing(line.polled(Request("GET", path), JOIN_SECONDS)) as responses:
        async for response in responses:
            for event in reader.take(JsonBody(response)):
                yield event
                if isinstance(event, ENDINGS):
                    return


def _broken(event: Mapping[str, Any]) -> Iterator[Event]:
    """What else ends a stream; most events are for those who watch a model."""
    match event:
        case {"type": "response.cancelled"}:
            yield Canceled()
        case {"type": "error"}:
            yield failure_in({name: event.get(name) for name in ("code", "message")})
        case {"error": error} if "type" not in event:
            yield failure_in(error)
