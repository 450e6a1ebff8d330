"""CrewAI AMP: a crew's kickoff with its inputs, asked how it stands until it is over; a task that waits for a person goes on by resume."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET
from pydantic import Field

from adapters.contract import ENDINGS, Answer, ArtifactPiece, Ask, Done, Event, Failed, Progress, Prompt, PromptKind, Ref, Turn, VendorRef
from adapters.task import Artifact, Message, Part, text_of
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, SkillFacts, Vendor, VendorOptions, said
from adapters.vendors.sdk.connection import Line, Request, quoted
from adapters.vendors.sdk.faults import FAILED, not_taken
from adapters.vendors.sdk.frames import Frame, JsonBody

WAITS: Final = frozenset({"pending human input", "pending_human_input", "waiting_for_human_input", "paused"})
WORKS: Final = frozenset({"running", "pending", "queued", "started", "processing"})
NO_FILES: Final = "The crew takes texts and structured data, and no files"
DECISION: Final = {
    "type": "object",
    "properties": {"approve": {"type": "boolean"}, "feedback": {"type": "string"}},
    "required": ["approve"],
}


class CrewAIOptions(VendorOptions):
    """`text`: the crew's input that a message's text becomes. `inputs`: those that are always the same, whatever a message says.

    `every`: seconds between questions how a kickoff stands. `title` and `about` are for the card, since a crew tells of neither.
    """

    text: str = Field(min_length=1)
    inputs: dict[str, str] = Field(default_factory=dict)
    every: float = Field(2.0, ge=0.02, le=600)
    title: str = "Crew"
    about: str = "A crew of CrewAI AMP."


class CrewAI:
    """A kickoff is a turn; nothing is kept between kickoffs."""

    kind: ClassVar[str] = "crewai"
    features: ClassVar[Features] = Features(resumes=True, parallel=True, questions=OpenQuestions.EACH)
    options: ClassVar[type[VendorOptions]] = CrewAIOptions

    async def describe(self, line: Line[CrewAIOptions]) -> AgentFacts:
        options = line.options
        names = [name for name in (await line.json(Request("GET", "/inputs")))["inputs"] if name not in options.inputs]
        schema = {"type": "object", "properties": {str(name): {"type": "string"} for name in names}, "required": names}
        skill = SkillFacts("kickoff", options.title, options.about, schema=schema if names else None)
        return AgentFacts(options.title, options.about, skills=(skill,))

    async def run(self, turn: Turn, line: Line[CrewAIOptions]) -> AsyncIterator[Event]:
        if turn.answers and turn.ref:
            kickoff = turn.ref.task_id
            yield Ref(VendorRef("", kickoff))
            for answer in turn.answers:
                await line.ask(Request("POST", "/resume", _decided(kickoff, answer)))
        else:
            body = {"inputs": _inputs(turn.message, line.options), "meta": {"conversation": turn.session, "user": line.user}}
            kickoff = str((await line.json(Request("POST", "/kickoff", body)))["kickoff_id"])
            yield Ref(VendorRef("", kickoff))
        async with aclosing(_status(kickoff, line)) as events:
            async for event in events:
                yield event

    async def join(self, ref: VendorRef, line: Line[CrewAIOptions]) -> AsyncIterator[Event]:
        async with aclosing(_status(ref.task_id, line)) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: Line[CrewAIOptions]) -> CancelOutcome:
        """There is no word for it."""
        return CancelOutcome.UNSUPPORTED


async def _status(kickoff: str, line: Line[CrewAIOptions]) -> AsyncGenerator[Event, None]:
    """Asks how a kickoff stands until it is over, or waits."""
    reader = KickoffReader(kickoff)
    async with aclosing(line.polled(Request("GET", f"/status/{quoted(kickoff)}"), line.options.every)) as values:
        async for value in values:
            for event in reader.take(JsonBody(value)):
                yield event
                if isinstance(event, ENDINGS):
                    return


def _inputs(message: Message, options: CrewAIOptions) -> dict[str, str]:
    """Crews know texts alone: members of structured data become inputs of their names, as texts or as JSON."""
    given: dict[str, str] = {}
    for part in message.parts:
        if isinstance(part.raw, str) or isinstance(part.url, str):
            raise not_taken("a file", NO_FILES)
        if isinstance(part.data, dict):
            given |= {name: _text(value) for name, value in part.data.items()}
        elif part.data is not UNSET:
            given[options.text] = _text(part.data)
    text = text_of(message.parts)
    return {**given, **({options.text: text} if text else {}), **options.inputs}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _decided(kickoff: str, answer: Answer) -> dict[str, Any]:
    value: Mapping[str, Any] = answer.value
    told = {"execution_id": kickoff, "task_id": answer.prompt.token["task"], "is_approve": value["approve"]}
    return {**told, "human_feedback": value.get("feedback") or ("Approved." if value["approve"] else "Not approved.")}


class KickoffReader:
    """Of what /status says, over and over. An error counts before any status."""

    def __init__(self, kickoff: str) -> None:
        self._kickoff = kickoff
        self._task = ""

    def take(self, frame: Frame) -> Iterator[Event]:
        """Raises ValueError for a status that nobody knows: it would be asked for ever."""
        if not isinstance(frame, JsonBody):
            return
        told = frame.value
        status = str(told["status"]).lower()
        if told.get("error") or status in ("error", "failed"):
            yield Failed(FAILED, detail=str(told.get("error") or told.get("message") or status))
        elif status in WAITS:
            yield Ask(prompts=(self._prompt(told),))
        elif status == "completed":
            yield from _answers(told["result"])
        elif status in WORKS:
            yield from self._works(told.get("current_task"))
        else:
            raise ValueError(f"the status {status!r} is none that is known")

    def _works(self, task: Any) -> Iterator[Event]:
        if isinstance(task, str) and task not in ("", self._task):
            self._task = task
            yield Progress(said(task))

    def _prompt(self, told: Mapping[str, Any]) -> Prompt:
        task = str(told.get("task_id") or told.get("current_task") or self._task)
        output = told.get("task_output") or told.get("output")
        text = "The crew asks whether what its task brought is good"
        return Prompt(f"{self._kickoff}/{task}", text, output, DECISION, PromptKind.APPROVAL, token={"task": task})


def _answers(result: Any) -> Iterator[Event]:
    """The crew's output; what its tasks brought on the way is not what it answers."""
    output = result.get("output", result.get("raw")) if isinstance(result, dict) else result
    whole = result.get("json_dict") if isinstance(result, dict) else None
    if output is None and not whole:
        raise ValueError("a crew that completed has an output")
    parts = tuple(
        Part(text=each) if isinstance(each, str) else Part(data=each, media_type="application/json") for each in (output, whole) if each
    )
    if parts:
        yield ArtifactPiece(Artifact("answer", parts))
    yield Done()


_: type[Vendor] = CrewAI
