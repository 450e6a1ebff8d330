"""What a LangGraph run tells: the stream of its events, or the state that it left, as artifacts, prompts and one ending."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from adapters.contract import ArtifactPiece, Ask, Done, Event, Failed, Ref, VendorRef
from adapters.task import Artifact, Part
from adapters.vendors.langchain.messages import MESSAGES, id_of, prompt_of, usage_of
from adapters.vendors.sdk.chat_content import files_in, text_in
from adapters.vendors.sdk.faults import FAILED
from adapters.vendors.sdk.frames import End, Frame, Head, JsonBody, SseFrame

INTERRUPT: Final = "__interrupt__"
ERROR: Final = "__error__"
STATE: Final = "state"  # the artifact of what a graph's state has beside its messages


class GraphReader:
    """Of a stream of `updates`, `messages` and `values`, or of the body of a wait. There is no end marker: the end of the body is it."""

    def __init__(self, thread: str, nodes: tuple[str, ...] = ()) -> None:
        self._thread, self._nodes = thread, nodes
        self._run = ""
        self._old: set[str] | None = None  # messages from before this run
        self._state: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._interrupts: dict[str, dict[str, Any]] = {}  # by their ids: nodes that run side by side ask one after another
        self._streamed: dict[str, str] = {}  # text by the id of its message
        self._moved = False

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case Head(headers):
                yield from self._named(headers.get("content-location", "").rpartition("/runs/")[2])
            case JsonBody(value):
                self._old, self._moved = set(), True
                yield from self._values(value)
            case SseFrame(event):
                yield from self._event(event.partition("|")[0], frame.json())
            case End() if self._moved:
                yield from self._end()

    def _named(self, run: str) -> Iterator[Event]:
        if run and run != self._run:
            self._run = run
            yield Ref(VendorRef(self._thread, run))

    def _event(self, name: str, data: Any) -> Iterator[Event]:
        if name == "metadata":
            yield from self._named(str(data["run_id"]))
        elif name == "error":
            yield _failed(data)
        elif name == "values":
            yield from self._values(data)
        elif name == "updates":
            self._updated(data)
        elif name == "messages":
            yield from self._token(*data)

    def _values(self, state: dict[str, Any]) -> Iterator[Event]:
        if ERROR in state:
            yield _failed(state[ERROR])
            return
        rest = {name: value for name, value in state.items() if name != INTERRUPT}
        if self._old is None:
            self._old, self._before = {id_of(each) for each in rest.get(MESSAGES, [])}, rest
        else:
            self._moved = True
        self._state = rest
        self._asked(state)

    def _updated(self, update: dict[str, Any]) -> None:
        """What values say again, where they come too."""
        self._moved = True
        self._asked(update)
        for name, changed in update.items():
            if name != INTERRUPT and isinstance(changed, dict) and self._old is None:
                messages = [*self._state.get(MESSAGES, []), *changed.get(MESSAGES, [])]
                self._state = {**self._state, **changed, **({MESSAGES: messages} if messages else {})}

    def _asked(self, told: Mapping[str, Any]) -> None:
        self._interrupts |= {each["id"]: each for each in told.get(INTERRUPT) or ()}

    def _token(self, chunk: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[Event]:
        text, known = text_in(chunk["content"]), id_of(chunk) in self._streamed
        if chunk["type"] != "AIMessageChunk" or not text or (self._nodes and about.get("langgraph_node") not in self._nodes):
            return
        self._streamed[id_of(chunk)] = self._streamed.get(id_of(chunk), "") + text
        yield ArtifactPiece(Artifact(id_of(chunk), (Part(text=text),)), append=known, last_chunk=False)

    def _end(self) -> Iterator[Event]:
        answers = list(self._answers())
        for message in answers:
            name, text = id_of(message), text_in(message["content"])
            streamed = not text or text in self._streamed.values()
            parts = (*(() if streamed else (Part(text=text),)), *files_in(message["content"]))
            if parts:
                yield ArtifactPiece(Artifact(name, parts), append=streamed and name in self._streamed)
        others = {name: value for name, value in self._state.items() if name != MESSAGES and value is not None}
        if others and others != {name: value for name, value in self._before.items() if name in others}:
            yield ArtifactPiece(Artifact(STATE, (Part(data=others, media_type="application/json"),), name=STATE))
        if self._interrupts:
            yield Ask(prompts=tuple(map(prompt_of, self._interrupts.values())))
        else:
            yield Done(metadata=usage_of(answers))

    def _answers(self) -> Iterable[dict[str, Any]]:
        """What the graph's model says after the person did; not what it says to its tools."""
        messages = self._state.get(MESSAGES, [])
        last = max((place for place, each in enumerate(messages) if each["type"] == "human"), default=-1)
        fresh = (each for each in messages[last + 1 :] if id_of(each) not in (self._old or ()))
        told = (each for each in fresh if each["type"] == "ai" and not each.get("tool_calls"))
        return (each for each in told if text_in(each["content"]) or files_in(each["content"]))


def _failed(said: Mapping[str, Any]) -> Failed:
    return Failed(FAILED, detail=f"{said.get('error')}: {said.get('message')}")
