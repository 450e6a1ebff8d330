"""Reads a LangGraph run, from its event stream or its final state: artifacts, prompts and one ending."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from adapters.contract import ArtifactPiece, Ask, Done, Event, Failed, RefLearned, VendorRef
from adapters.task import Artifact, Part
from adapters.vendors.langchain.messages import MESSAGES, interrupt_prompt, message_id_of, usage_metadata
from adapters.vendors.sdk.chat_content import files_in, text_in
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import End, Frame, Head, JsonBody, SseFrame

INTERRUPT_KEY: Final = "__interrupt__"
ERROR_KEY: Final = "__error__"
STATE_ARTIFACT: Final = "state"  # the artifact of the state members other than messages


class GraphReader:
    """Reads a stream of `updates`, `messages` and `values`, or the body of a wait. The end of the body is the end marker."""

    def __init__(self, thread: str, nodes: tuple[str, ...] = ()) -> None:
        self._thread, self._nodes = thread, nodes
        self._run = ""
        self._old_message_ids: set[str] | None = None  # messages of earlier runs
        self._state: dict[str, Any] = {}
        self._state_before: dict[str, Any] = {}
        self._interrupts: dict[str, dict[str, Any]] = {}  # by id: parallel nodes raise them one after another
        self._streamed: dict[str, str] = {}  # text by the id of its message
        self._has_progressed = False

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case Head(headers):
                yield from self._note_run(headers.get("content-location", "").rpartition("/runs/")[2])
            case JsonBody(value):
                self._old_message_ids, self._has_progressed = set(), True
                yield from self._read_values(value)
            case SseFrame(event):
                yield from self._read_event(event.partition("|")[0], frame.json())
            case End() if self._has_progressed:
                yield from self._final_events()

    def _note_run(self, run: str) -> Iterator[Event]:
        if run and run != self._run:
            self._run = run
            yield RefLearned(VendorRef(self._thread, run))

    def _read_event(self, name: str, data: Any) -> Iterator[Event]:
        if name == "metadata":
            yield from self._note_run(str(data["run_id"]))
        elif name == "error":
            yield _failure_from_error(data)
        elif name == "values":
            yield from self._read_values(data)
        elif name == "updates":
            self._apply_update(data)
        elif name == "messages":
            yield from self._token_events(*data)

    def _read_values(self, state: dict[str, Any]) -> Iterator[Event]:
        if ERROR_KEY in state:
            yield _failure_from_error(state[ERROR_KEY])
            return
        rest = {name: value for name, value in state.items() if name != INTERRUPT_KEY}
        if self._old_message_ids is None:
            self._old_message_ids, self._state_before = {message_id_of(each) for each in rest.get(MESSAGES, [])}, rest
        else:
            self._has_progressed = True
        self._state = rest
        self._collect_interrupts(state)

    def _apply_update(self, update: dict[str, Any]) -> None:
        """Applies an update; `values` events repeat its content where they are enabled."""
        self._has_progressed = True
        self._collect_interrupts(update)
        for name, changed in update.items():
            if name != INTERRUPT_KEY and isinstance(changed, dict) and self._old_message_ids is None:
                messages = [*self._state.get(MESSAGES, []), *changed.get(MESSAGES, [])]
                self._state = {**self._state, **changed, **({MESSAGES: messages} if messages else {})}

    def _collect_interrupts(self, update: Mapping[str, Any]) -> None:
        self._interrupts |= {each["id"]: each for each in update.get(INTERRUPT_KEY) or ()}

    def _token_events(self, chunk: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[Event]:
        text, known = text_in(chunk["content"]), message_id_of(chunk) in self._streamed
        if chunk["type"] != "AIMessageChunk" or not text or (self._nodes and metadata.get("langgraph_node") not in self._nodes):
            return
        self._streamed[message_id_of(chunk)] = self._streamed.get(message_id_of(chunk), "") + text
        yield ArtifactPiece(Artifact(message_id_of(chunk), (Part(text=text),)), append=known, last_chunk=False)

    def _final_events(self) -> Iterator[Event]:
        answers = list(self._new_answers())
        for message in answers:
            name, text = message_id_of(message), text_in(message["content"])
            streamed = not text or text in self._streamed.values()
            parts = (*(() if streamed else (Part(text=text),)), *files_in(message["content"]))
            if parts:
                yield ArtifactPiece(Artifact(name, parts), append=streamed and name in self._streamed)
        others = {name: value for name, value in self._state.items() if name != MESSAGES and value is not None}
        if others and others != {name: value for name, value in self._state_before.items() if name in others}:
            yield ArtifactPiece(Artifact(STATE_ARTIFACT, (Part(data=others, media_type="application/json"),), name=STATE_ARTIFACT))
        if self._interrupts:
            yield Ask(prompts=tuple(map(interrupt_prompt, self._interrupts.values())))
        else:
            yield Done(metadata=usage_metadata(answers))

    def _new_answers(self) -> Iterable[dict[str, Any]]:
        """The model's messages after the person's last one, without calls of tools."""
        messages = self._state.get(MESSAGES, [])
        last = max((place for place, each in enumerate(messages) if each["type"] == "human"), default=-1)
        fresh = (each for each in messages[last + 1 :] if message_id_of(each) not in (self._old_message_ids or ()))
        answers = (each for each in fresh if each["type"] == "ai" and not each.get("tool_calls"))
        return (each for each in answers if text_in(each["content"]) or files_in(each["content"]))


def _failure_from_error(error: Mapping[str, Any]) -> Failed:
    return Failed(AGENT_FAILED_TEXT, detail=f"{error.get('error')}: {error.get('message')}")
