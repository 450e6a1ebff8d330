"""CrewAI AMP: a kickoff of a crew with inputs, polled until it ends; a task that waits for a person continues through /resume."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from msgspec import UNSET
from pydantic import Field

from adapters.contract import (
    ENDINGS,
    Answer,
    ArtifactPiece,
    Ask,
    Done,
    Event,
    Failed,
    Progress,
    Prompt,
    PromptKind,
    RefLearned,
    Turn,
    VendorRef,
)
from adapters.task import Artifact, Message, Part, text_of
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, SkillFacts, Vendor, VendorOptions, agent_message
from adapters.vendors.sdk.chat_content import as_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT, unsupported_content_fault
from adapters.vendors.sdk.frames import Frame, JsonBody

WAITING_STATUSES: Final = frozenset({"pending human input", "pending_human_input", "waiting_for_human_input", "paused"})
WORKING_STATUSES: Final = frozenset({"running", "pending", "queued", "started", "processing"})
NO_FILES_TEXT: Final = "The crew accepts texts and structured data, but no files"
DECISION_SCHEMA: Final = {
    "type": "object",
    "properties": {"approve": {"type": "boolean"}, "feedback": {"type": "string"}},
    "required": ["approve"],
}


class CrewAIOptions(VendorOptions):
    """Options. `text`: the crew's input that gets a message's text. `inputs`: fixed inputs of every kickoff.

    `every`: seconds between two polls. `title` and `about` are for the card, since a crew has neither.
    """

    text: str = Field(min_length=1)
    inputs: dict[str, str] = Field(default_factory=dict)
    every: float = Field(2.0, ge=0.02, le=600)
    title: str = "Crew"
    about: str = "A crew of CrewAI AMP."


class CrewAI:
    """The CrewAI vendor: a kickoff is a turn; nothing is kept between kickoffs."""

    kind: ClassVar[str] = "crewai"
    features: ClassVar[Features] = Features(resumes=True, parallel=True, questions=OpenQuestions.EACH)
    options: ClassVar[type[VendorOptions]] = CrewAIOptions

    async def describe(self, connection: VendorConnection[CrewAIOptions]) -> AgentFacts:
        options = connection.options
        names = [name for name in (await connection.request_json(Request("GET", "/inputs")))["inputs"] if name not in options.inputs]
        schema = {"type": "object", "properties": {str(name): {"type": "string"} for name in names}, "required": names}
        skill = SkillFacts("kickoff", options.title, options.about, schema=schema if names else None)
        return AgentFacts(options.title, options.about, skills=(skill,))

    async def run(self, turn: Turn, connection: VendorConnection[CrewAIOptions]) -> AsyncIterator[Event]:
        if turn.answers and turn.ref:
            kickoff = turn.ref.task_id
            yield RefLearned(VendorRef("", kickoff))
            for answer in turn.answers:
                await connection.request(Request("POST", "/resume", _resume_body(kickoff, answer)))
        else:
            body = {"inputs": _inputs(turn.message, connection.options), "meta": {"conversation": turn.session, "user": connection.user}}
            kickoff = str((await connection.request_json(Request("POST", "/kickoff", body)))["kickoff_id"])
            yield RefLearned(VendorRef("", kickoff))
        async with aclosing(_poll_status(kickoff, connection)) as events:
            async for event in events:
                yield event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[CrewAIOptions]) -> AsyncIterator[Event]:
        async with aclosing(_poll_status(ref.task_id, connection)) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[CrewAIOptions]) -> CancelOutcome:
        """Returns UNSUPPORTED: the API has no cancel."""
        return CancelOutcome.UNSUPPORTED


async def _poll_status(kickoff: str, connection: VendorConnection[CrewAIOptions]) -> AsyncGenerator[Event, None]:
    """Polls a kickoff until it ends or waits."""
    reader = KickoffReader(kickoff)
    async with aclosing(connection.poll_json(Request("GET", f"/status/{quote_segment(kickoff)}"), connection.options.every)) as values:
        async for value in values:
            for event in reader.read(JsonBody(value)):
                yield event
                if type(event) in ENDINGS:
                    return


def _inputs(message: Message, options: CrewAIOptions) -> dict[str, str]:
    """The inputs of a kickoff, which are texts: members of structured data become inputs with their names, as texts or JSON."""
    part_inputs: dict[str, str] = {}
    for part in message.parts:
        if isinstance(part.raw, str) or isinstance(part.url, str):
            raise unsupported_content_fault("a file", NO_FILES_TEXT)
        if isinstance(part.data, dict):
            part_inputs |= {name: as_text(value) for name, value in part.data.items()}
        elif part.data is not UNSET:
            part_inputs[options.text] = as_text(part.data)
    text = text_of(message.parts)
    return {**part_inputs, **({options.text: text} if text else {}), **options.inputs}


def _resume_body(kickoff: str, answer: Answer) -> dict[str, Any]:
    value: Mapping[str, Any] = answer.value
    decision = {"execution_id": kickoff, "task_id": answer.prompt.token["task"], "is_approve": value["approve"]}
    return {**decision, "human_feedback": value.get("feedback") or ("Approved." if value["approve"] else "Not approved.")}


class KickoffReader:
    """Reads responses of /status. An error takes precedence over the status."""

    def __init__(self, kickoff: str) -> None:
        self._kickoff = kickoff
        self._task = ""

    def read(self, frame: Frame) -> Iterator[Event]:
        """Reads one response. Raises ValueError for an unknown status, which would otherwise be polled for ever."""
        if not isinstance(frame, JsonBody):
            return
        document = frame.value
        status = str(document["status"]).lower()
        if document.get("error") or status in ("error", "failed"):
            yield Failed(AGENT_FAILED_TEXT, detail=str(document.get("error") or document.get("message") or status))
        elif status in WAITING_STATUSES:
            yield Ask(prompts=(self._build_prompt(document),))
        elif status == "completed":
            yield from _output_events(document["result"])
        elif status in WORKING_STATUSES:
            yield from self._progress_events(document.get("current_task"))
        else:
            raise ValueError(f"the status {status!r} is unknown")

    def _progress_events(self, task: Any) -> Iterator[Event]:
        if isinstance(task, str) and task not in ("", self._task):
            self._task = task
            yield Progress(agent_message(task))

    def _build_prompt(self, status: Mapping[str, Any]) -> Prompt:
        task = str(status.get("task_id") or status.get("current_task") or self._task)
        output = status.get("task_output") or status.get("output")
        text = "The crew asks you to approve the output of its task"
        return Prompt(f"{self._kickoff}/{task}", text, output, DECISION_SCHEMA, PromptKind.APPROVAL, token={"task": task})


def _output_events(result: Any) -> Iterator[Event]:
    """Sends the crew's output, without the outputs of its tasks. Raises ValueError if there is none."""
    output = result.get("output", result.get("raw")) if isinstance(result, dict) else result
    json_output = result.get("json_dict") if isinstance(result, dict) else None
    if output is None and not json_output:
        raise ValueError("the crew completed without an output")
    parts = tuple(
        Part(text=each) if isinstance(each, str) else Part(data=each, media_type="application/json")
        for each in (output, json_output)
        if each
    )
    if parts:
        yield ArtifactPiece(Artifact("answer", parts))
    yield Done()


_: type[Vendor] = CrewAI
