"""Google ADK api_server: runs of an app in a user's session; long-running calls become prompts, answers become function responses."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET

from adapters.contract import (
    AgentFault,
    Answer,
    ArtifactPiece,
    Ask,
    Done,
    Event,
    Failed,
    Prompt,
    PromptKind,
    RefLearned,
    Turn,
    VendorRef,
    token_usage_metadata,
)
from adapters.task import Artifact, Part
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import question_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT, UNKNOWN_RESOURCE_TEXT, UPSTREAM
from adapters.vendors.sdk.frames import End, Frame, JsonBody, SseFrame

CONFIRMATION_CALL: Final = "adk_request_confirmation"
CREDENTIAL_CALL: Final = "adk_request_credential"
INPUT_CALL: Final = "adk_request_input"
USAGE_FIELDS: Final = {"input_tokens": "promptTokenCount", "output_tokens": "candidatesTokenCount", "total_tokens": "totalTokenCount"}
CALLBACK_SCHEMA: Final = {"type": "object", "properties": {"authResponseUri": {"type": "string"}}, "required": ["authResponseUri"]}
BOOLEAN_SCHEMA: Final = {"type": "boolean"}
CONFIRMATION_SCHEMA: Final = {"type": "object", "properties": {"confirmed": {"type": "boolean"}, "payload": {}}, "required": ["confirmed"]}


class AdkOptions(VendorOptions):
    """Options of an ADK agent. `app`: the name of the agent's folder."""

    app: str


class Adk:
    """The ADK vendor: a session belongs to one user; an invocation is one turn, and continues when its question is answered."""

    kind: ClassVar[str] = "adk"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.EACH)
    options: ClassVar[type[VendorOptions]] = AdkOptions

    async def describe(self, connection: VendorConnection[AdkOptions]) -> AgentFacts:
        app = connection.options.app
        app_info = await connection.request(Request("GET", f"/apps/{quote_segment(app)}/app-info", accepted_statuses=(404,)))
        if app_info.status == 404 and app not in await connection.request_json(Request("GET", "/list-apps")):
            raise AgentFault(UPSTREAM, UNKNOWN_RESOURCE_TEXT, "no such app")
        known = app_info.value if app_info.status != 404 else {}
        return AgentFacts(known.get("rootAgentName") or app, known.get("description") or f"The ADK agent {app}.")

    async def run(self, turn: Turn, connection: VendorConnection[AdkOptions]) -> AsyncIterator[Event]:
        sessions = f"/apps/{quote_segment(connection.options.app)}/users/{quote_segment(connection.user)}/sessions"
        session = (turn.ref.context_id if turn.ref else "") or str((await connection.request_json(Request("POST", sessions, {})))["id"])
        yield RefLearned(VendorRef(session))
        new_message = {"role": "user", "parts": [_result(each) for each in turn.answers] or [_part(part) for part in turn.message.parts]}
        body = {"appName": connection.options.app, "userId": connection.user, "sessionId": session, "newMessage": new_message}
        request = Request("POST", "/run_sse", {**body, "streaming": True}) if turn.stream else Request("POST", "/run", body)
        reader = AdkReader(session)
        async with aclosing(read_events(reader, connection.stream_frames(request))) as events:
            async for event in events:
                if isinstance(event, Ask | Done):
                    for name, version in reader.saved_versions.items():
                        path = f"{sessions}/{quote_segment(session)}/artifacts/{quote_segment(name)}?version={int(version)}"
                        found = await connection.request(Request("GET", path, accepted_statuses=(404,)))
                        if found.status != 404:
                            yield ArtifactPiece(Artifact(f"{name}:{version}", tuple(_parts_for_people(found.value)), name=name))
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[AdkOptions]) -> CancelOutcome:
        """Returns UNSUPPORTED: the API has no cancel; an invocation ends with its connection."""
        return CancelOutcome.UNSUPPORTED


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part.text, str):
        return {"text": part.text}
    kind = {"mimeType": part.media_type or "application/octet-stream"}
    if isinstance(part.raw, str):
        return {"inlineData": {**kind, "data": part.raw}}
    if isinstance(part.url, str):
        return {"fileData": {**kind, "fileUri": part.url}}
    return {"text": msgspec.json.encode(None if part.data is UNSET else part.data).decode()}


def _result(answer: Answer) -> dict[str, Any]:
    """An answer as the function response of the call that asked."""
    call, value = answer.prompt.token, answer.value
    if call["name"] == CONFIRMATION_CALL and isinstance(value, bool):
        value = {"confirmed": value}
    elif call["name"] == CREDENTIAL_CALL:
        value = _credential_response(call["config"], value)
    response = value if isinstance(value, dict) else {"result": value}
    return {"functionResponse": {"id": answer.prompt.id, "name": call["name"], "response": response}}


def _credential_response(config: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The credential request with the callback URL that the person was redirected to."""
    exchanged = config.get("exchangedAuthCredential") or {}
    oauth2 = {**(exchanged.get("oauth2") or {}), "authResponseUri": value["authResponseUri"]}
    return {**config, "exchangedAuthCredential": {**exchanged, "oauth2": oauth2}}


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
        parts = list(_parts_for_people(*content.get("parts") or ()))
        key = f"{event.get('author')} {event.get('branch')}"
        if event.get("partial"):
            yield from self._piece_events(key, str(event["id"]), "".join(part.text for part in parts if isinstance(part.text, str)))
            return
        yield from self._whole_events(key, str(event.get("id")), parts)
        self._collect_metadata(event, content.get("parts") or ())

    def _piece_events(self, key: str, name: str, text: str) -> Iterator[Event]:
        if text:
            known, earlier_text = self._partial.get(key, (name, ""))
            self._partial[key] = (known, earlier_text + text)
            yield ArtifactPiece(Artifact(known, (Part(text=text),)), append=bool(earlier_text), last_chunk=False)

    def _whole_events(self, key: str, name: str, parts: list[Part]) -> Iterator[Event]:
        """Sends a complete event. It replaces the pieces sent before if it differs from them."""
        known, earlier_text = self._partial.pop(key, (name, ""))
        if parts and not (earlier_text and [part.text for part in parts] == [earlier_text]):
            yield ArtifactPiece(Artifact(known, tuple(parts)))

    def _collect_metadata(self, event: Mapping[str, Any], parts: Any) -> None:
        waiting = event.get("longRunningToolIds") or ()
        for call in (part["functionCall"] for part in parts if part.get("functionCall")):
            if call.get("id") in waiting or call["name"] in (INPUT_CALL, CREDENTIAL_CALL):
                self._prompts[call["id"]] = _build_prompt(call)
        self.saved_versions |= (event.get("actions") or {}).get("artifactDelta") or {}
        figures = event.get("usageMetadata") or {}
        for name, vendor_name in USAGE_FIELDS.items():
            if vendor_name in figures:
                self._figures[name] = self._figures.get(name, 0) + figures[vendor_name]
        self._model = event.get("modelVersion") or self._model


def _parts_for_people(*parts: Mapping[str, Any]) -> Iterator[Part]:
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
        confirmation = args.get("toolConfirmation") or {}
        structured = confirmation.get("payload") is not None
        data = {"call": args.get("originalFunctionCall"), **({"payload": confirmation["payload"]} if structured else {})}
        return Prompt(
            call["id"],
            confirmation.get("hint") or "",
            data,
            CONFIRMATION_SCHEMA if structured else BOOLEAN_SCHEMA,
            PromptKind.APPROVAL,
            token=token,
        )
    if name == CREDENTIAL_CALL:
        oauth2 = (args["authConfig"].get("exchangedAuthCredential") or {}).get("oauth2") or {}
        prompt_token = {**token, "config": args["authConfig"]}
        return Prompt(call["id"], schema=CALLBACK_SCHEMA, kind=PromptKind.AUTH, url=oauth2.get("authUri") or "", token=prompt_token)
    if name == INPUT_CALL:
        wanted = args.get("responseSchema") or args.get("response_schema")
        return Prompt(call["id"], args.get("message") or "", args.get("payload"), wanted, token=token)
    return Prompt(call["id"], question_text(args), {"call": name, "args": args}, token=token)


_: type[Vendor] = Adk
