"""Reads OpenAI Responses, streamed or whole: texts become artifacts, open calls and approvals become prompts, and one ending."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from adapters.contract import ENDINGS, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, RefLearned, VendorRef
from adapters.task import Artifact, Part
from adapters.vendors.openai.items import (
    approval_prompt,
    consent_prompt,
    is_commentary,
    is_structured,
    open_call_prompt,
    output_events,
    refusal_text,
    usage_metadata,
)
from adapters.vendors.sdk.agent import agent_message
from adapters.vendors.sdk.connection import Request, VendorConnection
from adapters.vendors.sdk.frames import Frame, JsonBody, SseFrame
from adapters.vendors.sdk.model_failures import REFUSED_TEXT, UNSUPPORTED_ACTION_TEXT, failure_for_code, failure_from_error

REATTACH_POLL_SECONDS: Final = 2.0  # between two polls of a response that another process began
ANSWERABLE_CALLS: Final = ("function_call", "custom_tool_call")  # calls whose results the caller provides
UNANSWERABLE_CALLS: Final = ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")


class ResponseReader:
    """Reads a stream of events, or a whole response. `session` is the conversation's id, where responses are not chained."""

    def __init__(self, session: str = "", is_devui: bool = False) -> None:
        self._session = session
        self._is_devui = is_devui
        self._run = ""
        self._is_structured = False
        self._commentary_ids: set[str] = set()  # items that are not the answer
        self._streamed: dict[str, str] = {}
        self._read_item_ids: set[str] = set()
        self._open_prompts: dict[str, Prompt] = {}
        self._unsupported_calls: dict[str, str] = {}  # kinds of calls that the client has to execute, by id
        self._refusal = ""

    def read(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, JsonBody):
            yield from self._final_events(frame.value)
        elif isinstance(frame, SseFrame) and frame.data != "[DONE]":
            yield from self._read_event(frame.json())

    def _read_event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event:
            case {"type": "response.created" | "response.in_progress", "response": response}:
                yield from self._note_response(response)
            case {"type": "response.output_item.added", "item": item} if is_commentary(item):
                self._commentary_ids.add(item["id"])
            case {"type": "response.output_text.delta", "item_id": name, "delta": text}:
                yield from self._delta_events(name, text)
            case {"type": "response.output_item.done", "item": item}:
                yield from self._item_events(item)
            case {"type": "response.completed" | "response.failed" | "response.incomplete", "response": response}:
                yield from self._final_events(response)
            case _:
                yield from _other_ending(event)

    def _delta_events(self, name: str, text: str) -> Iterator[Event]:
        if name not in self._commentary_ids and not self._is_structured:
            yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._streamed, last_chunk=False)
            self._streamed[name] = self._streamed.get(name, "") + text

    def _note_response(self, response: Mapping[str, Any]) -> Iterator[Event]:
        self._is_structured = is_structured(response)
        if response["id"] != self._run:
            self._run = response["id"]
            yield RefLearned(VendorRef(self._session, self._run))

    def _final_events(self, response: Mapping[str, Any]) -> Iterator[Event]:
        yield from self._note_response(response)
        status, error = response["status"], response.get("error")
        if status == "failed" or error:
            yield failure_from_error(error)
        elif status == "cancelled":
            yield Canceled()
        elif status in ("completed", "incomplete"):
            for item in response["output"]:
                yield from self._item_events(item)
            ending = self._ending(response)
            answered = isinstance(ending, Done) or (isinstance(ending, Failed) and ending.rejected)
            if status == "completed" and answered and not self._is_devui:  # a response with an open call accepts only its result
                yield RefLearned(VendorRef(self._run, self._run))
            yield ending

    def _ending(self, response: Mapping[str, Any]) -> Event:
        if response["status"] == "incomplete":
            why = str((response.get("incomplete_details") or {}).get("reason"))
            return failure_for_code("content_filter" if why == "content_filter" else "length", why)
        if self._refusal:
            return Failed(REFUSED_TEXT, agent_message(self._refusal), rejected=True)
        if self._unsupported_calls:
            return Failed(UNSUPPORTED_ACTION_TEXT, detail=", ".join(self._unsupported_calls.values()))
        if self._open_prompts:
            return Ask(prompts=tuple(self._open_prompts.values()))
        return Done(metadata=usage_metadata(response.get("model"), response.get("usage")))

    def _item_events(self, item: Mapping[str, Any]) -> Iterator[Event]:
        """Reads each item once, although the end of a stream repeats all of them."""
        kind, name = item["type"], str(item.get("id") or item.get("call_id") or "answer")
        if name in self._read_item_ids:
            return
        self._read_item_ids.add(name)
        if kind == "mcp_approval_request":
            self._open_prompts[name] = approval_prompt(name, item)
        elif kind == "oauth_consent_request":
            self._open_prompts[name] = consent_prompt(name, item)
        elif kind in ANSWERABLE_CALLS and not self._is_devui:  # DevUI executes them itself
            self._open_prompts[item["call_id"]] = open_call_prompt(item, token=kind)
        elif kind.endswith("_output"):
            self._open_prompts.pop(item.get("call_id", ""), None)
            self._unsupported_calls.pop(item.get("call_id") or name, None)
        elif kind in UNANSWERABLE_CALLS or (kind == "tool_search_call" and item.get("execution") == "client"):
            self._unsupported_calls[item.get("call_id") or name] = kind
        else:
            self._refusal = self._refusal or refusal_text(item)
            yield from output_events(name, item, self._streamed, self._is_structured)


async def poll_response(ref: VendorRef, connection: VendorConnection[Any], path: str) -> AsyncGenerator[Event, None]:
    """Polls a background response that another process began, and yields its events until it ends."""
    reader = ResponseReader(ref.context_id)
    async with aclosing(connection.poll_json(Request("GET", path), REATTACH_POLL_SECONDS)) as responses:
        async for response in responses:
            for event in reader.read(JsonBody(response)):
                yield event
                if type(event) in ENDINGS:
                    return


def _other_ending(event: Mapping[str, Any]) -> Iterator[Event]:
    """The ending for other events that end a stream; all others are ignored."""
    match event:
        case {"type": "response.cancelled"}:
            yield Canceled()
        case {"type": "error"}:
            yield failure_from_error({name: event.get(name) for name in ("code", "message")})
        case {"error": error} if "type" not in event:
            yield failure_from_error(error)
