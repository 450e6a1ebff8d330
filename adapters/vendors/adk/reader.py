"""Reads events of ADK's api_server: texts, files and token usage; long-running calls become prompts."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.contract import ArtifactPiece, Ask, Done, Event, Failed, Prompt, PromptKind, RefLearned, VendorRef, token_usage_metadata
from adapters.task import Artifact, Part
from adapters.vendors.sdk.chat_content import question_text
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import End, Frame, JsonBody, SseFrame

CONFIRMATION_CALL: Final = "adk_request_confirmation"
CREDENTIAL_CALL: Final = "adk_request_credential"
INPUT_CALL: Final = "adk_request_input"
USAGE_FIELDS: Final = {"input_tokens": "promptTokenCount", "output_tokens": "candidatesTokenCount", "total_tokens": "totalTokenCount"}
CALLBACK_SCHEMA: Final = {"type": "object", "properties": {"authResponseUri": {"type": "string"}}, "required": ["authResponseUri"]}
BOOLEAN_SCHEMA: Final = {"type": "boolean"}
CONFIRMATION_SCHEMA: Final = {"type": "object", "properties": {"confirmed": {"type": "boolean"}, "payload": {}}, "required": ["confirmed"]}


class AdkReader:
    """Reads events of a JSON array or a stream. Without an end marker, the end of the body ends the turn, unless a text is incomplete."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._invocation = ""
        self._partial: dict[str, tuple[str, str]] = {}  # author -> artifact and text of an event that arrives in pieces
        self._prompts: dict[str, Prompt] = {}
        self._figures: dict[str, int] = {}
        self._model = ""
        self.saved_versions: dict[str, int] = {}  # files that the agent saved -> version

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value):
                for event in value:
                    yield from self._read_event(event)
            case SseFrame("" | "message"):
                yield from self._read_event(frame.json())
            case End() if self._invocation and not self._partial:
                prompts = tuple(self._prompts.values())
                yield Ask(prompts=prompts) if prompts else Done(metadata=token_usage_metadata(self._model, **self._figures))

    def _read_event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        if event.get("error") or event.get("errorCode"):
            yield Failed(AGENT_FAILED_TEXT, detail=str(event.get("error") or f"{event['errorCode']}: {event.get('errorMessage')}"))
            return
        invocation = event.get("invocationId") or self._invocation
        if invocation != self._invocation:
            self._invocation = invocation
            yield RefLearned(VendorRef(self._session, invocation))
        content = event.get("content") or {}
        if event.get("author") == "user":
            return
        parts = list(parts_for_people(*content.get("parts") or ()))
        key = f"{event.get('author')} {event.get('branch')}"
        if event.get("partial"):
            yield from self._piece_events(key, str(event["id"]), "".join(part.text for part in parts if isinstance(part.text, str)))
            return
        yield from self._whole_events(key, str(event.get("id")), parts)
        self._collect_metadata(event, content.get("parts") or ())

    def _piece_events(self, key: str, name: str, text: str) -> Iterator[Event]:
        if text:
            known, before = self._partial.get(key, (name, ""))
            self._partial[key] = (known, before + text)
            yield ArtifactPiece(Artifact(known, (Part(text=text),)), append=bool(before), last_chunk=False)

    def _whole_events(self, key: str, name: str, parts: list[Part]) -> Iterator[Event]:
        """Sends a complete event. It replaces the pieces sent before if it differs from them."""
        known, before = self._partial.pop(key, (name, ""))
        if parts and not (before and [part.text for part in parts] == [before]):
            yield ArtifactPiece(Artifact(known, tuple(parts)))

    def _collect_metadata(self, event: Mapping[str, Any], parts: Any) -> None:
        waiting = event.get("longRunningToolIds") or ()
        for call in (part["functionCall"] for part in parts if part.get("functionCall")):
            if call.get("id") in waiting or call["name"] in (INPUT_CALL, CREDENTIAL_CALL):
                self._prompts[call["id"]] = _build_prompt(call)
        self.saved_versions |= (event.get("actions") or {}).get("artifactDelta") or {}
        figures = event.get("usageMetadata") or {}
        for name, theirs in USAGE_FIELDS.items():
            if theirs in figures:
                self._figures[name] = self._figures.get(name, 0) + figures[theirs]
        self._model = event.get("modelVersion") or self._model


def parts_for_people(*parts: Mapping[str, Any]) -> Iterator[Part]:
    """Yields the parts that are for people: no thoughts, calls or tool results."""
    for part in parts:
        if part.get("thought"):
            continue
        if part.get("text"):
            yield Part(text=part["text"])
        elif blob := part.get("inlineData"):
            data = blob["data"].replace("-", "+").replace("_", "/")
            yield Part(raw=data, media_type=blob.get("mimeType") or "", filename=blob.get("displayName") or "")
        elif file := part.get("fileData"):
            yield Part(url=file["fileUri"], media_type=file.get("mimeType") or "", filename=file.get("displayName") or "")


def _build_prompt(call: Mapping[str, Any]) -> Prompt:
    name, args, token = call["name"], call.get("args") or {}, {"name": call["name"]}
    if name == CONFIRMATION_CALL:
        asked = args.get("toolConfirmation") or {}
        structured = asked.get("payload") is not None
        data = {"call": args.get("originalFunctionCall"), **({"payload": asked["payload"]} if structured else {})}
        return Prompt(
            call["id"],
            asked.get("hint") or "",
            data,
            CONFIRMATION_SCHEMA if structured else BOOLEAN_SCHEMA,
            PromptKind.APPROVAL,
            token=token,
        )
    if name == CREDENTIAL_CALL:
        oauth2 = (args["authConfig"].get("exchangedAuthCredential") or {}).get("oauth2") or {}
        kept = {**token, "config": args["authConfig"]}
        return Prompt(call["id"], schema=CALLBACK_SCHEMA, kind=PromptKind.AUTH, url=oauth2.get("authUri") or "", token=kept)
    if name == INPUT_CALL:
        wanted = args.get("responseSchema") or args.get("response_schema")
        return Prompt(call["id"], args.get("message") or "", args.get("payload"), wanted, token=token)
    return Prompt(call["id"], question_text(args), {"call": name, "args": args}, token=token)
