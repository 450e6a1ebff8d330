"""Dify: messages to apps that chat, runs of workflows, forms that people fill in as prompts. Its stream says when it is over, twice."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from adapters.contract import (
    CITATIONS,
    ENDINGS,
    ArtifactPiece,
    Ask,
    Canceled,
    CannotReattach,
    Done,
    Event,
    Failed,
    Prompt,
    PromptKind,
    Ref,
    Turn,
    VendorRef,
    usage,
)
from adapters.frames import End, Frame, SseFrame
from adapters.task import Artifact, Message, Part, text_of
from adapters.vendor import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read
from adapters.vendor_faults import FAILED
from adapters.vendor_line import Line, Request, multipart, quoted

BEGINS: Final = {"chat": "/chat-messages", "completion": "/completion-messages", "workflow": "/workflows/run"}
STOPS: Final = {"chat": "/chat-messages", "completion": "/completion-messages", "workflow": "/workflows/tasks"}
ANSWER: Final = "answer"  # the artifact
JOIN_SECONDS: Final = 2.0  # between two questions how a run stands that another process began
Json = dict[str, Any]


class DifyOptions(VendorOptions):
    """`text` and `files`: the inputs of a workflow that these become. `inputs`: what every run gets besides."""

    mode: Literal["chat", "completion", "workflow"] = "chat"
    text: str = "query"
    files: str = "files"
    inputs: Mapping[str, Any] | None = None


class Dify:
    """An app is known by its key; who the person is it takes from us."""

    kind: ClassVar[str] = "dify"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, polls=True, files=True, questions=OpenQuestions.EACH)
    options: ClassVar[type[VendorOptions]] = DifyOptions

    async def describe(self, line: Line[DifyOptions]) -> AgentFacts:
        about = await line.json(Request("GET", "/info"))
        return AgentFacts(str(about["name"]), str(about.get("description") or f"The Dify app {about['name']}."))

    async def run(self, turn: Turn, line: Line[DifyOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        for each in turn.answers:
            form = f"/form/human_input/{quoted(str(each.prompt.token))}"
            filled = {**_filled(each.value), "user": line.user}
            await line.ask(Request("POST", form, filled, also=(412,)))  # filled in already, or out of time: what follows is read next
        if turn.answers:
            request = Request("GET", f"/workflow/{quoted(str(ref.extra['run']))}/events?user={quote(line.user, safe='')}")
        else:
            files = [await _sent(part, line) for part in turn.message.parts if isinstance(part.raw, str) or isinstance(part.url, str)]
            request = Request("POST", BEGINS[line.options.mode], _begun(turn.message, files, ref.context_id, line))
        async with aclosing(read(DifyReader(ref if turn.answers else VendorRef(ref.context_id)), line.frames(request))) as events:
            async for event in events:
                yield event

    async def poll(self, ref: VendorRef, line: Line[DifyOptions]) -> AsyncIterator[Event]:
        """A form may be filled in elsewhere, or run out of time, which the workflow decides about."""
        for event in DifyReader(ref).finished(await line.json(Request("GET", f"/workflows/run/{quoted(str(ref.extra['run']))}"))):
            yield event

    async def join(self, ref: VendorRef, line: Line[DifyOptions]) -> AsyncIterator[Event]:
        """Only runs of workflows can be asked about, and not for a form that such a run waits for."""
        if not ref.extra.get("run"):
            raise CannotReattach
        reader = DifyReader(ref)
        async with aclosing(line.polled(Request("GET", f"/workflows/run/{quoted(str(ref.extra['run']))}"), JOIN_SECONDS)) as runs:
            async for run in runs:
                if run["status"] == "paused":
                    raise CannotReattach
                for event in reader.finished(run):
                    yield event
                    if isinstance(event, ENDINGS):
                        return

    async def cancel(self, ref: VendorRef, line: Line[DifyOptions]) -> CancelOutcome:
        """It says that it was told, and not that it stopped; only runs of workflows can be asked about."""
        await line.ask(Request("POST", f"{STOPS[line.options.mode]}/{quoted(ref.task_id)}/stop", {"user": line.user}))
        run = ref.extra.get("run")
        state = (await line.json(Request("GET", f"/workflows/run/{quoted(str(run))}")))["status"] if run else ""
        if state in ("", "running", "paused"):
            return CancelOutcome.UNKNOWN
        return CancelOutcome.CANCELED if state == "stopped" else CancelOutcome.TOO_LATE


def _begun(message: Message, files: list[Json], conversation: str, line: Line[DifyOptions]) -> Json:
    options, text = line.options, text_of(message.parts)
    given = {name: value for part in message.parts if isinstance(part.data, dict) for name, value in part.data.items()}
    inputs = {**(options.inputs or {}), **given}
    body = {"inputs": inputs, "response_mode": "streaming", "user": line.user}
    if options.mode == "chat":
        return {**body, "query": text, "conversation_id": conversation, "files": files}
    own = {**({options.text: text} if text else {}), **({options.files: files} if files and options.mode == "workflow" else {})}
    return {**body, "inputs": {**inputs, **own}, **({"files": files} if options.mode == "completion" else {})}


async def _sent(part: Part, line: Line[DifyOptions]) -> Json:
    """A file by its address, or uploaded as this person's."""
    form = part.media_type.partition("/")[0]
    kind = {"type": form if form in ("image", "audio", "video") else "document"}
    if not isinstance(part.raw, str):
        return {**kind, "transfer_method": "remote_url", "url": part.url}
    kind_of, body = multipart({"user": line.user}, part)
    uploaded = await line.json(Request("POST", "/files/upload", body, headers={"content-type": kind_of}))
    return {**kind, "transfer_method": "local_file", "upload_file_id": str(uploaded["id"])}


def _filled(value: Any) -> Json:
    """An action alone, or with what was filled in."""
    if not isinstance(value, dict):
        return {"action": value, "inputs": {}}
    return {"action": value["action"], "inputs": {name: each for name, each in value.items() if name != "action"}}


class DifyReader:
    """Of one answer. `message_end` ends that of an app that chats, `workflow_finished` that of a workflow, which may chat too."""

    def __init__(self, ref: VendorRef) -> None:
        self._ref = ref
        self._text = ""
        self._by_agent = False
        self._flows = bool(ref.extra.get("run"))
        self._prompts: list[Prompt] = []
        self._used: Json | None = None

    def take(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, SseFrame) and frame.event in ("", "message"):
            event = frame.json()
            yield from self._named(event)
            yield from self._event(str(event.get("event")), event)
        elif isinstance(frame, End) and self._used is not None:
            yield Done(metadata=self._used)

    def _named(self, event: Json) -> Iterator[Event]:
        """A task is what can be stopped, a run what can be followed."""
        before = self._ref
        run = event.get("workflow_run_id") or before.extra.get("run")
        self._flows, extra = bool(run), {"run": run} if run else {}
        self._ref = VendorRef(event.get("conversation_id") or before.context_id, event.get("task_id") or before.task_id, extra)
        if self._ref != before:
            yield Ref(self._ref)

    def _event(self, name: str, event: Json) -> Iterator[Event]:
        data = event.get("data") or {}
        if name in ("message", "agent_message", "text_chunk", "message_replace"):
            text = str(event.get("answer") or (data.get("text") if name == "text_chunk" else "") or "")
            yield from self._said(text, whole=name == "message_replace" or (name == "message" and self._by_agent))
            self._by_agent = self._by_agent or name == "agent_message"
        elif name == "message_file" and event.get("belongs_to") == "assistant":
            yield ArtifactPiece(Artifact(str(event["id"]), (Part(url=event["url"]),)))
        elif name == "message_end":
            yield from self._over(event.get("metadata") or {})
        elif name == "human_input_required":
            self._prompts.append(_prompt(data))
        elif name == "workflow_paused":
            yield Ask(prompts=tuple(self._prompts)) if self._prompts else Failed(FAILED, detail=f"paused: {data.get('reasons')}")
        elif name == "workflow_finished":
            yield from self.finished(data)
        elif name == "error":
            yield Failed(FAILED, detail=f"{event.get('code')}: {event.get('message')}")

    def _said(self, text: str, whole: bool) -> Iterator[Event]:
        if whole and text != self._text:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=text),)))
            self._text = text
        elif text and not whole:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=text),)), append=bool(self._text), last_chunk=False)
            self._text += text

    def _over(self, notes: Mapping[str, Any]) -> Iterator[Event]:
        figures = notes.get("usage") or {}
        self._used = usage("", figures.get("prompt_tokens"), figures.get("completion_tokens"), figures.get("total_tokens"))
        found = [{"title": each.get("document_name"), "text": each.get("content")} for each in notes.get("retriever_resources") or ()]
        if found and self._text:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=self._text, metadata={CITATIONS: found}),)))
        if not self._flows:
            yield Done(metadata=self._used)

    def finished(self, run: Mapping[str, Any]) -> Iterator[Event]:
        """How a run stands: nothing while it goes on or waits."""
        outputs = {name: value for name, value in (run.get("outputs") or {}).items() if value != self._text and value not in (None, "")}
        status = run["status"]
        if status in ("succeeded", "partial-succeeded"):
            only = next(iter(outputs.values())) if len(outputs) == 1 else None
            if isinstance(only, str) and not self._text:
                yield from self._said(only, whole=True)
            elif outputs:
                yield ArtifactPiece(Artifact("outputs", (Part(data=outputs, media_type="application/json"),), name="outputs"))
            yield Done(metadata=self._used or usage(total_tokens=run.get("total_tokens")))
        elif status == "stopped":
            yield Canceled()
        elif status not in ("running", "paused"):
            yield Failed(FAILED, detail=f"{status}: {run.get('error')}")


def _prompt(form: Mapping[str, Any]) -> Prompt:
    """A form without a token is filled in from an e-mail, and by nobody here."""
    actions = [str(each["id"]) for each in form.get("actions") or form.get("user_actions") or ()]
    inputs = {str(each["output_variable_name"]): _field(each) for each in form.get("inputs") or ()}
    choice: Json = {"type": "string", "enum": actions} if form.get("form_token") else {"type": "string", "enum": []}
    schema = {"type": "object", "properties": {**inputs, "action": choice}, "required": ["action"]} if inputs else choice
    data = {"title": form.get("node_title"), "actions": form.get("actions"), "inputs": form.get("inputs")}
    kind = PromptKind.INPUT if inputs else PromptKind.APPROVAL
    return Prompt(str(form["form_id"]), str(form.get("form_content") or ""), data, schema, kind, token=form.get("form_token"))


def _field(said: Mapping[str, Any]) -> Json:
    source = said.get("option_source") or {}
    if said["type"] == "select" and source.get("type") == "constant":
        return {"type": "string", "enum": list(source["value"])}
    return {"type": "string"} if said["type"] in ("paragraph", "select") else {}


_: type[Vendor] = Dify
