"""Reads Dify's responses: the stream of a turn, which may have two end events, and the state of a run."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.contract import (
    CITATIONS_KEY,
    ArtifactPiece,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    Prompt,
    PromptKind,
    RefLearned,
    VendorRef,
    token_usage_metadata,
)
from adapters.task import Artifact, Part
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import End, Frame, SseFrame

ANSWER: Final = "answer"  # the artifact's id
Json = dict[str, Any]


class DifyReader:
    """Reads one answer. `message_end` ends that of a chat app, `workflow_finished` that of a workflow, which may also chat."""

    def __init__(self, ref: VendorRef) -> None:
        self._ref = ref
        self._text = ""
        self._is_agent_app = False
        self._has_workflow = bool(ref.extra.get("run"))
        self._prompts: list[Prompt] = []
        self._usage: Json | None = None

    def read(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, SseFrame) and frame.event in ("", "message"):
            event = frame.json()
            yield from self._note_ids(event)
            yield from self._read_event(str(event.get("event")), event)
        elif isinstance(frame, End) and self._usage is not None:
            yield Done(metadata=self._usage)

    def _note_ids(self, event: Json) -> Iterator[Event]:
        """Notes the ids: a task can be stopped, a run can be polled."""
        previous_ref = self._ref
        run = event.get("workflow_run_id") or previous_ref.extra.get("run")
        self._has_workflow, extra = bool(run), {"run": run} if run else {}
        self._ref = VendorRef(event.get("conversation_id") or previous_ref.context_id, event.get("task_id") or previous_ref.task_id, extra)
        if self._ref != previous_ref:
            yield RefLearned(self._ref)

    def _read_event(self, name: str, event: Json) -> Iterator[Event]:
        data = event.get("data") or {}
        if name in ("message", "agent_message", "text_chunk", "message_replace"):
            text = str(event.get("answer") or (data.get("text") if name == "text_chunk" else "") or "")
            yield from self._text_events(text, is_whole=name == "message_replace" or (name == "message" and self._is_agent_app))
            self._is_agent_app = self._is_agent_app or name == "agent_message"
        elif name == "message_file" and event.get("belongs_to") == "assistant":
            yield ArtifactPiece(Artifact(str(event["id"]), (Part(url=event["url"]),)))
        elif name == "message_end":
            yield from self._message_end_events(event.get("metadata") or {})
        elif name == "human_input_required":
            self._prompts.append(_build_prompt(data))
        elif name == "workflow_paused":
            yield Ask(prompts=tuple(self._prompts)) if self._prompts else Failed(AGENT_FAILED_TEXT, detail=f"paused: {data.get('reasons')}")
        elif name == "workflow_finished":
            yield from self.read_run(data)
        elif name == "error":
            yield Failed(AGENT_FAILED_TEXT, detail=f"{event.get('code')}: {event.get('message')}")

    def _text_events(self, text: str, is_whole: bool) -> Iterator[Event]:
        if is_whole and text != self._text:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=text),)))
            self._text = text
        elif text and not is_whole:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=text),)), append=bool(self._text), last_chunk=False)
            self._text += text

    def _message_end_events(self, notes: Mapping[str, Any]) -> Iterator[Event]:
        figures = notes.get("usage") or {}
        self._usage = token_usage_metadata("", figures.get("prompt_tokens"), figures.get("completion_tokens"), figures.get("total_tokens"))
        found = [{"title": each.get("document_name"), "text": each.get("content")} for each in notes.get("retriever_resources") or ()]
        if found and self._text:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=self._text, metadata={CITATIONS_KEY: found}),)))
        if not self._has_workflow:
            yield Done(metadata=self._usage)

    def read_run(self, run: Mapping[str, Any]) -> Iterator[Event]:
        """Yields the events for a run's state: none while it runs or waits."""
        outputs = {name: value for name, value in (run.get("outputs") or {}).items() if value != self._text and value not in (None, "")}
        status = run["status"]
        if status in ("succeeded", "partial-succeeded"):
            only = next(iter(outputs.values())) if len(outputs) == 1 else None
            if isinstance(only, str) and not self._text:
                yield from self._text_events(only, is_whole=True)
            elif outputs:
                yield ArtifactPiece(Artifact("outputs", (Part(data=outputs, media_type="application/json"),), name="outputs"))
            yield Done(metadata=self._usage or token_usage_metadata(total_tokens=run.get("total_tokens")))
        elif status == "stopped":
            yield Canceled()
        elif status not in ("running", "paused"):
            yield Failed(AGENT_FAILED_TEXT, detail=f"{status}: {run.get('error')}")


def _build_prompt(form: Mapping[str, Any]) -> Prompt:
    """A form as a prompt. A form without a token is submitted by e-mail, so its prompt can't be answered here."""
    actions = [str(each["id"]) for each in form.get("actions") or form.get("user_actions") or ()]
    inputs = {str(each["output_variable_name"]): _field_schema(each) for each in form.get("inputs") or ()}
    choice: Json = {"type": "string", "enum": actions} if form.get("form_token") else {"type": "string", "enum": []}
    schema = {"type": "object", "properties": {**inputs, "action": choice}, "required": ["action"]} if inputs else choice
    data = {"title": form.get("node_title"), "actions": form.get("actions"), "inputs": form.get("inputs")}
    kind = PromptKind.INPUT if inputs else PromptKind.APPROVAL
    return Prompt(str(form["form_id"]), str(form.get("form_content") or ""), data, schema, kind, token=form.get("form_token"))


def _field_schema(field: Mapping[str, Any]) -> Json:
    source = field.get("option_source") or {}
    if field["type"] == "select" and source.get("type") == "constant":
        return {"type": "string", "enum": list(source["value"])}
    return {"type": "string"} if field["type"] in ("paragraph", "select") else {}
