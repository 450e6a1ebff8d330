"""What is particular to ADK's api_server."""

import json
from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Ask, Done, Event, Failed, Prompt, PromptKind, VendorRef
from adapters.task import Part
from adapters.vendors.adk.reader import AdkReader
from adapters.vendors.sdk.agent import CancelOutcome, parse_events
from adapters.vendors.sdk.frames import End, Head, JsonBody, SseFrame
from tests.adapters.hand_written import asked, canceled, described, exchange
from tests.adapters.replay import ReplayEgress, outcome, recorded

UPSTREAM = {"app": "echo"}
REF = VendorRef("s-1")


def read(*events: dict[str, Any]) -> list[Event]:
    return list(parse_events(AdkReader("s-1"), [Head({}), JsonBody(list(events)), End(True)]))


def event(*parts: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"invocationId": "e-1", "author": "echo", "id": "ev-1", "content": {"role": "model", "parts": list(parts)}, **members}


@pytest.mark.parametrize(
    ("seq", "apps", "kind", "reason"),
    [
        (0, ["echo"], "SESSION_LOST", "The agent no longer has this conversation"),
        (4, ["echo"], "SESSION_LOST", "The agent no longer has this conversation"),
        (1, [], "UPSTREAM", "The agent does not have the requested resource"),
    ],
    ids=["session", "session of a stream", "agent"],
)
async def test_recorded_errors_tell_nothing_of_the_server(seq: int, apps: list[str], kind: str, reason: str) -> None:
    exchange_ = next(each for each in recorded("adk", "errors") if each["seq"] == seq)
    stream = exchange_["request"]["path"] == "/run_sse"
    described = [exchange("GET", "/apps/echo/app-info", status=404, json={}), exchange("GET", "/list-apps", json=apps)]
    talk = [{**exchange_, "request": {**exchange_["request"], "json": {}}}, *described]
    events = await asked("adk", UPSTREAM, talk, ref=VendorRef("nosuch"), stream=stream)
    assert isinstance(events[-1], Failed)
    assert (events[-1].kind, events[-1].reason) == (kind, reason)
    assert "nosuch" in events[-1].detail or "nope" in events[-1].detail


def test_thoughts_calls_and_the_persons_own_words_are_no_answer() -> None:
    events = read(
        event({"text": "hm", "thought": True}, {"text": "yes"}, {"functionCall": {"id": "c", "name": "add", "args": {}}}),
        event({"text": "what I said"}, author="user"),
    )
    assert outcome(events) == {"state": "COMPLETED", "artifacts": [{"text": "yes"}]}


def test_files_come_out_as_they_were_whatever_alphabet_they_are_written_in() -> None:
    events = read(event({"inlineData": {"mimeType": "image/png", "data": "-_-_", "displayName": "x.png"}}))
    pieces = [each for each in events if isinstance(each, ArtifactPiece)]
    assert pieces[0].artifact.parts == (Part(raw="+/+/", media_type="image/png", filename="x.png"),)


def test_a_text_that_stays_in_pieces_is_no_whole_answer() -> None:
    frames = [SseFrame("message", '{"invocationId":"e","author":"a","id":"1","partial":true,"content":{"parts":[{"text":"half"}]}}')]
    events = list(parse_events(AdkReader("s"), [Head({}), *frames, End(True)]))
    assert isinstance(events[-1], Failed)


def test_pieces_are_replaced_by_the_whole_where_it_says_something_else() -> None:
    def sse(text: str, partial: bool) -> SseFrame:
        body = {"invocationId": "e", "author": "a", "id": text, "partial": partial, "content": {"parts": [{"text": text}]}}
        return SseFrame("message", json.dumps(body))

    reader = AdkReader("s")
    events = list(parse_events(reader, [sse("half ", True), sse("a word ", True), sse("half a word", False), End(True)]))
    assert outcome(events)["artifacts"] == [{"text": "half a word"}]
    events = list(parse_events(AdkReader("s"), [sse("same", True), sse("same", False), End(True)]))
    assert [each.artifact.artifact_id for each in events if isinstance(each, ArtifactPiece)] == ["same"]


def test_a_credential_is_asked_for_by_an_address_and_without_its_configuration() -> None:
    config = {
        "authScheme": {"type": "oauth2"},
        "rawAuthCredential": {"oauth2": {"clientSecret": "hunter2"}},
        "exchangedAuthCredential": {"oauth2": {"authUri": "https://idp.example/authorize?state=x", "state": "x"}},
    }
    call = {"id": "c-1", "name": "adk_request_credential", "args": {"functionCallId": "f", "authConfig": config}}
    ending = read(event({"functionCall": call}, longRunningToolIds=["c-1"]))[-1]
    assert isinstance(ending, Ask)
    prompt = ending.prompts[0]
    assert (prompt.kind, prompt.url) == (PromptKind.AUTH, "https://idp.example/authorize?state=x")
    assert "hunter2" not in f"{prompt.text}{prompt.data}{prompt.schema}"
    assert prompt.token["config"] == config


async def test_an_authorization_is_returned_with_the_redirect_address() -> None:
    config = {"credentialKey": "k", "exchangedAuthCredential": {"oauth2": {"state": "x"}}}
    prompt = Prompt("c-1", kind=PromptKind.AUTH, token={"name": "adk_request_credential", "config": config})
    value = {"authResponseUri": "https://app.example/cb?code=1&state=x"}
    said = {"functionResponse": {"id": "c-1", "name": "adk_request_credential", "response": {
        "credentialKey": "k", "exchangedAuthCredential": {"oauth2": {"state": "x", **value}}}}}  # fmt: skip
    talk = [exchange("POST", "/run_sse", {"newMessage": {"role": "user", "parts": [said]}}, sse=[event({"text": "thanks"})])]
    events = await asked("adk", UPSTREAM, talk, ref=REF, answers=(Answer(prompt, value),))
    assert isinstance(events[-1], Done)


async def test_an_input_is_asked_for_with_its_schema_and_answered_as_a_result() -> None:
    args = {"message": "How many?", "payload": {"max": 3}, "response_schema": {"type": "integer"}}
    ending = read(event({"functionCall": {"id": "i-1", "name": "adk_request_input", "args": args}}))[-1]
    assert isinstance(ending, Ask)
    prompt = ending.prompts[0]
    assert (prompt.text, prompt.data, prompt.schema) == ("How many?", {"max": 3}, {"type": "integer"})
    said = {"functionResponse": {"id": "i-1", "name": "adk_request_input", "response": {"result": 2}}}
    talk = [exchange("POST", "/run_sse", {"newMessage": {"role": "user", "parts": [said]}}, sse=[event({"text": "two"})])]
    assert isinstance((await asked("adk", UPSTREAM, talk, ref=REF, answers=(Answer(prompt, 2),)))[-1], Done)


def test_a_confirmation_that_wants_a_payload_is_asked_for_with_it() -> None:
    args = {
        "toolConfirmation": {"hint": "How much?", "confirmed": False, "payload": {"amount": 0}},
        "originalFunctionCall": {"name": "pay"},
    }
    ending = read(event({"functionCall": {"id": "c", "name": "adk_request_confirmation", "args": args}}, longRunningToolIds=["c"]))[-1]
    assert isinstance(ending, Ask)
    assert ending.prompts[0].data == {"call": {"name": "pay"}, "payload": {"amount": 0}}
    assert ending.prompts[0].schema is not None and ending.prompts[0].schema["required"] == ["confirmed"]


async def test_what_the_agent_saved_is_fetched() -> None:
    saved = event({"text": "done"}, actions={"artifactDelta": {"sub/report.txt": 2, "gone.txt": 0}})
    session = "/apps/echo/users/{user}/sessions/s-1"
    talk = [
        exchange("POST", "/run_sse", {}, sse=[saved]),
        exchange("GET", f"{session}/artifacts/sub%2Freport.txt?version=2", json={"inlineData": {"mimeType": "text/plain", "data": "aGk="}}),
        exchange("GET", f"{session}/artifacts/gone.txt?version=0", status=404, json={"detail": "Artifact not found"}),
    ]
    events = await asked("adk", UPSTREAM, talk, ref=REF, ours=("{user}",))
    assert isinstance(events[-1], Done)
    files = [each.artifact for each in events if isinstance(each, ArtifactPiece) and each.artifact.name]
    assert [(each.name, each.parts[0].raw) for each in files] == [("sub/report.txt", "aGk=")]


async def test_who_the_person_is_comes_from_the_token_and_never_from_the_message() -> None:
    said = {"parts": [{"data": {"userId": "admin"}}, {"text": "hi"}]}
    talk = [
        exchange("POST", "/apps/echo/users/admin/sessions", json={"id": "s"}),
        exchange("POST", "/run_sse", {}, sse=[event({"text": "hi"})]),
    ]
    egress = ReplayEgress(tuple(talk), {})
    assert isinstance((await asked("adk", UPSTREAM, egress, send=said))[-1], Failed)
    assert any("/apps/echo/users/u-" in problem for problem in egress.problems)


async def test_an_invocation_is_not_said_to_be_stopped() -> None:
    assert await canceled("adk", UPSTREAM, [], REF) is CancelOutcome.UNSUPPORTED


async def test_an_older_server_is_described_by_its_name_alone() -> None:
    from_list = [exchange("GET", "/apps/echo/app-info", status=404, json={}), exchange("GET", "/list-apps", json=["echo"])]
    told_of = await described("adk", UPSTREAM, from_list)
    assert told_of.name == "echo"
