"""Reads the events of an AG-UI run; interrupts and calls of configured tools become prompts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, PromptKind, token_usage_metadata
from adapters.task import Artifact, Part
from adapters.vendors.sdk.chat_content import question_text, text_in
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import Frame, SseFrame

USAGE_FIELDS: Final = {"input_tokens": "inputTokens", "output_tokens": "outputTokens", "total_tokens": "totalTokens"}
Json = dict[str, Any]


class AgUiReader:
    """Reads the events of one run, which RUN_FINISHED or RUN_ERROR ends. Ignores messages between the agent's parts.

    `tools` are those that people answer; `known_message_ids` are ids of earlier messages.
    """

    def __init__(self, tools: Sequence[str] = (), known_message_ids: Sequence[str] = ()) -> None:
        self._tools = tools
        self._known_message_ids = set(known_message_ids)
        self.texts: dict[str, str] = {}  # by message id, as received so far
        self._calls: dict[str, Json] = {}  # name and arguments of the calls without a result
        self._other_message_ids: set[str] = set()  # messages that are not an answer
        self._message = self._tool = ""  # ids of the latest ones
        self._snapshot: list[Json] = []
        self.state: Any = None

    def read(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, SseFrame) and frame.event in ("", "message"):
            event = frame.json()
            if not event.get("subagentRunId"):
                yield from self._read_event(str(event.get("type")), event)

    def _read_event(self, kind: str, event: Json) -> Iterator[Event]:
        if kind.startswith("TEXT_MESSAGE_"):
            self._message = event.get("messageId") or self._message
            if event.get("role", "assistant") != "assistant":
                self._other_message_ids.add(self._message)
            yield from self._piece_events(self._message, event.get("delta") or "")
        elif kind.startswith("TOOL_CALL_"):
            self._collect_call(kind, event)
        elif kind.startswith("STATE_"):
            self.state = event.get("snapshot")  # patches are not applied, so a state that a patch follows is not sent
        elif kind == "MESSAGES_SNAPSHOT":
            self._snapshot = event["messages"]
        elif kind == "RUN_ERROR":
            yield Failed(AGENT_FAILED_TEXT, detail=f"{event.get('code')}: {event.get('message')}")
        elif kind == "RUN_FINISHED":
            yield from self._final_events(event)

    def _collect_call(self, kind: str, event: Json) -> None:
        self._tool = event.get("toolCallId") or self._tool
        if kind == "TOOL_CALL_RESULT":
            self._calls.pop(self._tool, None)
        else:
            call = self._calls.setdefault(self._tool, {"name": "", "arguments": ""})
            call["name"] = event.get("toolCallName") or call["name"]
            call["arguments"] += event.get("delta") or ""

    def _piece_events(self, name: str, text: str) -> Iterator[Event]:
        if text and name not in self._other_message_ids:
            known = name in self.texts
            self.texts[name] = self.texts.get(name, "") + text
            yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=known, last_chunk=False)

    def _final_events(self, event: Json) -> Iterator[Event]:
        outcome, result = event.get("outcome") or {}, event.get("result")
        if outcome.get("type") == "cancelled":
            yield Canceled()
            return
        if not self.texts:
            yield from self._snapshot_events()
        if isinstance(result, str) and result not in self.texts.values():
            yield from self._piece_events("result", result)
        for name, data in (("result", None if isinstance(result, str) else result), ("state", self.state)):
            if data:
                yield ArtifactPiece(Artifact(name, (Part(data=data, media_type="application/json"),), name=name))
        calls = outcome.get("pendingToolCallIds") or [name for name, call in self._calls.items() if call["name"] in self._tools]
        waits = [self._interrupt_prompt(each) for each in outcome.get("interrupts") or ()] or [self._call_prompt(name) for name in calls]
        yield Ask(prompts=tuple(waits)) if waits else Done(metadata=_usage(event.get("usage") or ()))

    def _snapshot_events(self) -> Iterator[Event]:
        """Sends the messages after the person's last one, for a run that sends a snapshot only."""
        last = max((place for place, each in enumerate(self._snapshot) if each["role"] == "user"), default=-1)
        for each in self._snapshot[last + 1 :]:
            if each["role"] == "assistant" and each["id"] not in self._known_message_ids:
                yield from self._piece_events(each["id"], text_in(each.get("content")))

    def _interrupt_prompt(self, interrupt: Json) -> Prompt:
        call = self._calls.get(interrupt.get("toolCallId") or "")
        data = {"reason": interrupt["reason"], **({"call": {"name": call["name"], "args": _args(call)}} if call else {})}
        kind = PromptKind.APPROVAL if interrupt.get("toolCallId") else PromptKind.INPUT
        return Prompt(interrupt["id"], interrupt.get("message") or "", data, interrupt.get("responseSchema"), kind)

    def _call_prompt(self, name: str) -> Prompt:
        call = self._calls[name]
        args = _args(call)
        return Prompt(
            name, question_text(args), {"call": call["name"], "args": args}, token={"id": name, "type": "function", "function": call}
        )


def _args(call: Json) -> Any:
    """The arguments of a call, which a model wrote and which may not be JSON."""
    try:
        return msgspec.json.decode(call["arguments"] or "{}")
    except ValueError:
        return call["arguments"]


def _usage(entries: Sequence[Mapping[str, Any]]) -> Json:
    total = {ours: sum(each.get(theirs) or 0 for each in entries) for ours, theirs in USAGE_FIELDS.items()}
    return token_usage_metadata(str(entries[0].get("model") or ""), **total) if entries else {}
