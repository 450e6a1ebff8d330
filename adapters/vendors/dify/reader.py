"""Answers of Dify: the stream of a turn, which says when it is over twice, and how a run stands."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.contract import CITATIONS, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, PromptKind, Ref, VendorRef, usage
from adapters.task import Artifact, Part
from adapters.vendors.sdk.faults import FAILED
from adapters.vendors.sdk.frames import End, Frame, SseFrame

ANSWER: Final = "answer"  # the artifact
Json = dict[str, Any]


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
