"""Google ADK api_server: runs of an app in a user's session; answers to prompts become function responses."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET

from adapters.contract import AgentFault, Answer, ArtifactPiece, Ask, Done, Event, RefLearned, Turn, VendorRef
from adapters.task import Artifact, Part
from adapters.vendors.adk.reader import CONFIRMATION_CALL, CREDENTIAL_CALL, AdkReader, parts_for_people
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import UNKNOWN_RESOURCE_TEXT, UPSTREAM


class AdkOptions(VendorOptions):
    """Options of an ADK agent. `app`: the name of the agent's folder."""

    app: str


class Adk:
    """The ADK vendor: a session belongs to one user; an invocation is one turn, and continues when its question is answered."""

    kind: ClassVar[str] = "adk"
    features: ClassVar[Features] = Features(streams=True, resumes=True, files=True, questions=OpenQuestions.EACH, keeps_sessions=True)
    options: ClassVar[type[VendorOptions]] = AdkOptions

    async def describe(self, connection: VendorConnection[AdkOptions]) -> AgentFacts:
        app = connection.options.app
        about = await connection.request(Request("GET", f"/apps/{quote_segment(app)}/app-info", accepted_statuses=(404,)))
        if about.status == 404 and app not in await connection.request_json(Request("GET", "/list-apps")):
            raise AgentFault(UPSTREAM, UNKNOWN_RESOURCE_TEXT, "no such app")
        known = about.value if about.status != 404 else {}
        return AgentFacts(known.get("rootAgentName") or app, known.get("description") or f"The ADK agent {app}.")

    async def run(self, turn: Turn, connection: VendorConnection[AdkOptions]) -> AsyncIterator[Event]:
        sessions = f"/apps/{quote_segment(connection.options.app)}/users/{quote_segment(connection.user)}/sessions"
        session = (turn.ref.context_id if turn.ref else "") or str((await connection.request_json(Request("POST", sessions, {})))["id"])
        yield RefLearned(VendorRef(session))
        said = {"role": "user", "parts": [_result(each) for each in turn.answers] or [_part(part) for part in turn.message.parts]}
        body = {"appName": connection.options.app, "userId": connection.user, "sessionId": session, "newMessage": said}
        request = Request("POST", "/run_sse", {**body, "streaming": True}) if turn.stream else Request("POST", "/run", body)
        reader = AdkReader(session)
        async with aclosing(read_events(reader, connection.stream_frames(request))) as events:
            async for event in events:
                if isinstance(event, Ask | Done):
                    for name, version in reader.saved_versions.items():
                        path = f"{sessions}/{quote_segment(session)}/artifacts/{quote_segment(name)}?version={int(version)}"
                        found = await connection.request(Request("GET", path, accepted_statuses=(404,)))
                        if found.status != 404:
                            yield ArtifactPiece(Artifact(f"{name}:{version}", tuple(parts_for_people(found.value)), name=name))
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


_: type[Vendor] = Adk
