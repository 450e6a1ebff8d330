"""What is particular to the Activity protocol."""

import json
from typing import Any

import pytest

from adapters.contract import Answer, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Progress, Prompt, PromptKind, RefLearned, VendorRef
from adapters.vendors.microsoft.activity_reader import ActivityReader
from adapters.vendors.sdk.agent import BadOptions, CancelOutcome, parse_events, parse_options
from adapters.vendors.sdk.frames import End, Head, JsonBody, SseFrame
from tests.adapters.hand_written import SESSION, Seen, asked, canceled, exchange
from tests.adapters.replay import ReplayEgress, outcome, vendor_of

STUDIO = {"dialect": "copilot-studio"}
VERSION = "?api-version=2022-03-01-preview"


def read(*activities: dict[str, Any]) -> list[Event]:
    return list(parse_events(ActivityReader(), [Head({}), JsonBody({"activities": list(activities)}), End(True)]))


def streamed(*activities: dict[str, Any]) -> list[Event]:
    frames = [SseFrame("activity", json.dumps(each)) for each in activities]
    return list(parse_events(ActivityReader(), [Head({}), *frames, End(True)]))


def message(text: str = "", **members: Any) -> dict[str, Any]:
    return {"type": "message", "text": text, "from": {"role": "bot"}, **members}


def card(kind: str, **content: Any) -> dict[str, Any]:
    return {"contentType": f"application/vnd.microsoft.card.{kind}", "content": content}


def typing(text: str, **about: Any) -> dict[str, Any]:
    return {"type": "typing", "text": text, **about}


def test_what_an_error_says_is_no_answer_even_when_it_comes_first_in_a_stream() -> None:
    error = {"type": "trace", "valueType": "https://www.botframework.com/schemas/error", "value": "boom in /srv"}
    events = streamed(message("Exception caught : boom in /srv"), error)
    assert outcome(events) == {"state": "FAILED", "artifacts": [], "kind": "", "reason": "The agent failed"}


def test_a_trace_that_is_no_error_and_what_is_echoed_are_no_answer() -> None:
    events = read({"type": "trace", "valueType": "other", "value": "x"}, message("me", **{"from": {"role": "user"}}), message("you"))
    assert outcome(events)["artifacts"] == [{"text": "you"}]


@pytest.mark.parametrize(
    ("code", "ending"),
    [("completedSuccessfully", Done), (None, Done), ("error", Failed), ("botTimedOut", Failed), ("userCancelled", Canceled)],
)
def test_a_conversation_that_ends_says_how(code: str | None, ending: type[Event]) -> None:
    assert isinstance(read(message("bye"), {"type": "endOfConversation", "code": code})[-1], ending)


def test_a_silent_agent_gives_an_empty_answer_and_a_silent_stream_is_lost() -> None:
    assert isinstance(read()[-1], Done)
    assert isinstance(streamed()[-1], Failed)


@pytest.mark.parametrize("kind", ["oauth", "signin"])
def test_a_login_is_asked_for_by_an_address_and_nothing_that_could_be_exchanged(kind: str) -> None:
    content = {
        "text": "Please log in",
        "connectionName": "graph",
        "tokenExchangeResource": {"id": "x", "uri": "api://secret"},
        "buttons": [{"type": "signin", "title": "Log in", "value": "https://login.example/x"}],
    }
    ending = read(message("", attachments=[card(kind, **content)]))[-1]
    assert isinstance(ending, Ask)
    (prompt,) = ending.prompts
    assert (prompt.kind, prompt.url, prompt.text) == (PromptKind.AUTH, "https://login.example/x", "Please log in")
    assert "secret" not in str(prompt)


def test_a_login_leads_nowhere_else_than_to_https() -> None:
    ending = read(message("", attachments=[card("oauth", buttons=[{"value": "javascript:alert(1)"}])]))[-1]
    assert isinstance(ending, Ask) and ending.prompts[0].url == ""


@pytest.mark.parametrize("delta", [True, False])
def test_a_text_that_comes_in_pieces_is_said_once(delta: bool) -> None:
    about = {"streamId": "s", "streamType": "streaming", **({"chunkType": "delta"} if delta else {})}
    pieces = ("Ada ", "pays") if delta else ("Ada ", "Ada pays")
    typed = [typing(piece, channelData=about) for piece in pieces]
    final = message("Ada pays", channelData={"streamId": "s", "streamType": "final"})
    events = streamed(typing("looking", entities=[{"type": "streaminfo", "streamType": "informative"}]), *typed, final)
    assert outcome(events)["artifacts"] == [{"text": "Ada pays"}]
    assert [event.append for event in events if isinstance(event, ArtifactPiece)] == [False, True]
    assert [event.message.parts[0].text for event in events if isinstance(event, Progress) and event.message] == ["looking"]
    changed = streamed(*typed, {**final, "text": "Ada does not"})
    assert outcome(changed)["artifacts"] == [{"text": "Ada does not"}]


def test_files_and_cards_are_parts() -> None:
    files = [
        {"contentType": "image/png", "contentUrl": "data:image/png;base64,AAAA", "name": "x.png"},
        {"contentType": "text/plain", "contentUrl": "/files/y", "name": "y"},
        card("hero", title="Ada"),
    ]
    (piece,) = (event for event in read(message("see", attachments=files)) if isinstance(event, ArtifactPiece))
    _, image, file, hero = piece.artifact.parts
    assert (image.raw, image.filename, file.url, hero.data) == ("AAAA", "x.png", "/files/y", {"title": "Ada"})


async def test_who_the_person_is_comes_from_the_token_and_never_from_the_message() -> None:
    egress = ReplayEgress((exchange("POST", "/api/messages", {"from": {"id": "admin"}}, json={"activities": []}),), {})
    await asked("activity", {}, egress, send={"data": {"from": {"id": "admin"}}})
    assert any(".from.id is 'u-" in problem for problem in egress.problems)


async def test_a_form_a_file_and_words_go_in_one_activity() -> None:
    said = {"parts": [{"text": "see"}, {"data": {"a": 1}}, {"raw": "AAAA", "mediaType": "image/png", "filename": "x.png"}]}
    file = {"contentType": "image/png", "contentUrl": "data:image/png;base64,AAAA", "name": "x.png"}
    body = {"text": "see", "value": {"a": 1}, "attachments": [file], "conversation": {"id": SESSION}, "deliveryMode": "expectReplies"}
    events = await asked("activity", {}, [exchange("POST", "/api/messages", body, json={"activities": []})], send=said)
    assert isinstance(events[-1], Done)


async def test_a_code_goes_back_as_what_the_person_says() -> None:
    prompt = Prompt("login-1", kind=PromptKind.AUTH)
    talk = [exchange("POST", "/bot", {"text": "123456", "conversation": {"id": "c"}}, json={"activities": [message("thanks")]})]
    events = await asked("activity", {"path": "/bot"}, talk, ref=VendorRef("c"), answers=(Answer(prompt, "123456"),))
    assert isinstance(events[-1], Done)


async def test_a_conversation_of_the_studio_may_be_told_by_its_greeting() -> None:
    greeting = message("hi", conversation={"id": "c/9"})
    begun = exchange("POST", f"/conversations{VERSION}", {"emitStartConversationEvent": False}, sse=[])
    begun["response"]["stream_raw"] = f"event: activity\ndata: {json.dumps(greeting)}\n\n"
    said = exchange("POST", f"/conversations/c%2F9{VERSION}", sse=[])
    said["response"]["stream_raw"] = f"event: activity\ndata: {json.dumps(message('yes'))}\n\n"
    events = await asked("activity", STUDIO, [begun, said])
    assert next(event.ref for event in events if isinstance(event, RefLearned)) == VendorRef("c/9")
    assert outcome(events)["artifacts"] == [{"text": "yes"}]


async def test_a_conversation_without_an_id_is_none() -> None:
    events = await asked("activity", STUDIO, [exchange("POST", f"/conversations{VERSION}", sse=[])])
    assert isinstance(events[-1], Failed) and events[-1].kind == "INVALID_AGENT_RESPONSE"


ENVIRONMENT = "http://env.environment.vendor.test"
ISLAND = "http://island.environment.vendor.test/bots/desk/conversations"
DISCOVERY = "/copilotstudio/agents/desk/conversation-endpoints"


def streaming(path: str, *activities: dict[str, Any], conversation: str = "") -> dict[str, Any]:
    made = exchange("POST", path, sse=activities)
    made["response"]["stream_raw"] = made["response"]["stream_raw"].replace("data: ", "event: activity\ndata: ")
    made["response"]["headers"]["x-ms-conversationid"] = conversation
    return made


async def discovering(egress: Seen, ref: VendorRef | None = None) -> list[Event]:
    """A turn with an agent whose environment tells where it is."""
    return await asked("activity", {**STUDIO, "agent": "desk"}, egress, url=ENVIRONMENT, ref=ref)


async def test_a_conversation_is_held_where_the_environment_says_and_goes_on_there() -> None:
    told = {"createConversation": f"{ISLAND}?api-version=1", "executeTurn": f"{ISLAND}/{{conversationId}}?api-version=1"}
    begun = streaming("/bots/desk/conversations?api-version=1", conversation="../c")
    turn = streaming("/bots/desk/conversations/..%2Fc?api-version=1", message("yes"))
    seen = Seen(exchange("GET", DISCOVERY, json=told), begun, turn)
    events = await discovering(seen)
    assert outcome(events)["artifacts"] == [{"text": "yes"}] and seen.problems == []
    place = f"{ISLAND}/..%2Fc?api-version=1"
    assert seen.seen == [(ENVIRONMENT + DISCOVERY, True), (f"{ISLAND}?api-version=1", True), (place, True)]
    then = Seen(turn)
    await discovering(then, next(event.ref for event in events if isinstance(event, RefLearned)))
    assert then.seen == [(place, True)], "the environment is asked once for each conversation"


@pytest.mark.parametrize(
    "where",
    [
        "http://island.environment.evil.test/{conversationId}",
        "http://evilenvironment.vendor.test/{conversationId}",
        "http://environment.vendor.test.evil.test/{conversationId}",
        "https://island.environment.vendor.test/{conversationId}",
        "http://island.environment.vendor.test:81/{conversationId}",
        "http://me@island.environment.vendor.test/{conversationId}",
        "http://island.environment.vendor.test/",
        "http://island.environment.vendor.test/{conversationId}/{other}",
        "http://island.environment.vendor.test/{conversationId}#x",
        "http://evil.test\\.environment.vendor.test/{conversationId}",
        "http://[/{conversationId}",
        "/bots/{conversationId}",
    ],
)
async def test_an_environment_leads_nowhere_outside_of_its_domain(where: str) -> None:
    seen = Seen(exchange("GET", DISCOVERY, json={"createConversation": ISLAND, "executeTurn": where}))
    events = await discovering(seen)
    assert isinstance(events[-1], Failed) and events[-1].kind == "INVALID_AGENT_RESPONSE"
    assert [url for url, _ in seen.seen] == [ENVIRONMENT + DISCOVERY]


async def test_an_address_that_begins_conversations_has_no_place_for_an_id() -> None:
    told = {"createConversation": f"{ISLAND}/{{conversationId}}", "executeTurn": f"{ISLAND}/{{conversationId}}"}
    events = await discovering(Seen(exchange("GET", DISCOVERY, json=told)))
    assert isinstance(events[-1], Failed) and events[-1].kind == "INVALID_AGENT_RESPONSE"


async def test_a_turn_is_not_said_to_be_stopped() -> None:
    assert await canceled("activity", {}, [], VendorRef("c")) is CancelOutcome.UNSUPPORTED


def test_a_path_is_below_the_agents_url() -> None:
    with pytest.raises(BadOptions, match=r"upstream\.path"):
        parse_options(vendor_of("activity"), {"path": "https://elsewhere.example/"})
