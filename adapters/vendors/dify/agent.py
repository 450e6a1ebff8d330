"""Dify: messages to chat apps, runs of workflows; forms for people become prompts."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from adapters.contract import ENDINGS, CannotReattach, Event, Turn, VendorRef
from adapters.task import Message, Part, text_of
from adapters.vendors.dify.reader import DifyReader
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection, encode_multipart, quote_segment

START_PATHS: Final = {"chat": "/chat-messages", "completion": "/completion-messages", "workflow": "/workflows/run"}
STOP_PATHS: Final = {"chat": "/chat-messages", "completion": "/completion-messages", "workflow": "/workflows/tasks"}
REATTACH_POLL_SECONDS: Final = 2.0  # between two polls of a run that another process began
Json = dict[str, Any]


class DifyOptions(VendorOptions):
    """Options. `text` and `files`: the workflow inputs that get a message's text and files. `inputs`: additional inputs of every run."""

    mode: Literal["chat", "completion", "workflow"] = "chat"
    text: str = "query"
    files: str = "files"
    inputs: Mapping[str, Any] | None = None


class Dify:
    """The Dify vendor: an API key identifies one app; the gateway sends the person's id."""

    kind: ClassVar[str] = "dify"
    features: ClassVar[Features] = Features(
        streams=True, cancels=True, resumes=True, polls=True, files=True, questions=OpenQuestions.EACH, keeps_sessions=True
    )
    options: ClassVar[type[VendorOptions]] = DifyOptions

    async def describe(self, connection: VendorConnection[DifyOptions]) -> AgentFacts:
        app_info = await connection.request_json(Request("GET", "/info"))
        return AgentFacts(str(app_info["name"]), str(app_info.get("description") or f"The Dify app {app_info['name']}."))

    async def run(self, turn: Turn, connection: VendorConnection[DifyOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        for each in turn.answers:
            form = f"/form/human_input/{quote_segment(str(each.prompt.token))}"
            filled = {**_form_body(each.value), "user": connection.user}
            await connection.request(
                Request("POST", form, filled, accepted_statuses=(412,))
            )  # accepted already, or expired: the events that follow tell
        if turn.answers:
            request = Request("GET", f"/workflow/{quote_segment(str(ref.extra['run']))}/events?user={quote(connection.user, safe='')}")
        else:
            files = [
                await _file_input(part, connection) for part in turn.message.parts if isinstance(part.raw, str) or isinstance(part.url, str)
            ]
            request = Request("POST", START_PATHS[connection.options.mode], _start_body(turn.message, files, ref.context_id, connection))
        async with aclosing(
            read_events(DifyReader(ref if turn.answers else VendorRef(ref.context_id)), connection.stream_frames(request))
        ) as events:
            async for event in events:
                yield event

    async def poll(self, ref: VendorRef, connection: VendorConnection[DifyOptions]) -> AsyncIterator[Event]:
        """Reads the run's state: a form may be submitted elsewhere, or expire, and the workflow decides what follows."""
        for event in DifyReader(ref).read_run(
            await connection.request_json(Request("GET", f"/workflows/run/{quote_segment(str(ref.extra['run']))}"))
        ):
            yield event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[DifyOptions]) -> AsyncIterator[Event]:
        """Polls a workflow run until it ends. Raises CannotReattach for an app without runs, and while a run waits for a form."""
        if not ref.extra.get("run"):
            raise CannotReattach
        reader = DifyReader(ref)
        async with aclosing(
            connection.poll_json(Request("GET", f"/workflows/run/{quote_segment(str(ref.extra['run']))}"), REATTACH_POLL_SECONDS)
        ) as runs:
            async for run in runs:
                if run["status"] == "paused":
                    raise CannotReattach
                for event in reader.read_run(run):
                    yield event
                    if type(event) in ENDINGS:
                        return

    async def cancel(self, ref: VendorRef, connection: VendorConnection[DifyOptions]) -> CancelOutcome:
        """Stops a task. Dify does not confirm that it stopped; only the state of a workflow run can be read."""
        await connection.request(
            Request("POST", f"{STOP_PATHS[connection.options.mode]}/{quote_segment(ref.task_id)}/stop", {"user": connection.user})
        )
        run = ref.extra.get("run")
        state = (await connection.request_json(Request("GET", f"/workflows/run/{quote_segment(str(run))}")))["status"] if run else ""
        if state in ("", "running", "paused"):
            return CancelOutcome.UNKNOWN
        return CancelOutcome.CANCELED if state == "stopped" else CancelOutcome.TOO_LATE


def _start_body(message: Message, files: list[Json], conversation: str, connection: VendorConnection[DifyOptions]) -> Json:
    options, text = connection.options, text_of(message.parts)
    data_inputs = {name: value for part in message.parts if isinstance(part.data, dict) for name, value in part.data.items()}
    inputs = {**(options.inputs or {}), **data_inputs}
    body = {"inputs": inputs, "response_mode": "streaming", "user": connection.user}
    if options.mode == "chat":
        return {**body, "query": text, "conversation_id": conversation, "files": files}
    own = {**({options.text: text} if text else {}), **({options.files: files} if files and options.mode == "workflow" else {})}
    return {**body, "inputs": {**inputs, **own}, **({"files": files} if options.mode == "completion" else {})}


async def _file_input(part: Part, connection: VendorConnection[DifyOptions]) -> Json:
    """A file by its URL, or uploaded for this person."""
    form = part.media_type.partition("/")[0]
    kind = {"type": form if form in ("image", "audio", "video") else "document"}
    if not isinstance(part.raw, str):
        return {**kind, "transfer_method": "remote_url", "url": part.url}
    kind_of, body = encode_multipart({"user": connection.user}, part)
    uploaded = await connection.request_json(Request("POST", "/files/upload", body, headers={"content-type": kind_of}))
    return {**kind, "transfer_method": "local_file", "upload_file_id": str(uploaded["id"])}


def _form_body(value: Any) -> Json:
    """The form's action, alone or with the submitted inputs."""
    if not isinstance(value, dict):
        return {"action": value, "inputs": {}}
    return {"action": value["action"], "inputs": {name: each for name, each in value.items() if name != "action"}}


_: type[Vendor] = Dify
