"""What is particular to Direct Line: conversations with a watermark, turns without an end mark, and the hosts that get the secret."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from adapters.contract import Answer, Done, Event, Failed, InvalidAnswer, Prompt, RefLearned, VendorRef
from adapters.vendors.sdk.agent import CancelOutcome
from tests.adapters.hand_written import Seen, asked, canceled, exchange
from tests.adapters.replay import ReplayEgress, outcome

OPTIONS = {"every": 0.01, "quiet": 2}
CONVERSATIONS = "/v3/directline/conversations"
ACTIVITIES = f"{CONVERSATIONS}/c-1/activities"
BEGUN = exchange("POST", CONVERSATIONS, {}, 201, {"conversationId": "c-1", "token": "t"})
SAID = exchange("POST", ACTIVITIES, {"type": "message", "text": "hello"}, json={"id": "a-1"})
THERE = "/c-1/activities"
SETTINGS = "http://env.environment.example/powervirtualagents/regionalchannelsettings?api-version=1"


def told(*activities: dict[str, Any], before: str = "", after: str = "") -> dict[str, Any]:
    """What the bot says to a question after `before`."""
    query = f"?watermark={before}" if before else ""
    return exchange("GET", ACTIVITIES + query, json={"activities": list(activities), "watermark": after or before or "1"})


def message(text: str, **members: Any) -> dict[str, Any]:
    return {"type": "message", "id": f"m-{text}", "text": text, "from": {"id": "bot"}, "replyToId": "a-1", **members}


def last_ref(events: list[Event]) -> VendorRef:
    return [event.ref for event in events if isinstance(event, RefLearned)][-1]


async def test_a_greeting_and_what_others_said_are_no_answer() -> None:
    greeting = message("Welcome!", replyToId="another")
    echo = message("hello", **{"from": {"id": "u-whoever", "role": "user"}})
    talk = [BEGUN, SAID, told(greeting, echo, message("yes")), told(before="1"), told(before="1")]
    assert outcome(await asked("direct-line", OPTIONS, talk))["artifacts"] == [{"text": "yes"}]


async def test_a_bot_that_goes_on_is_waited_for_and_one_that_is_quiet_is_done() -> None:
    busy = message("one moment", inputHint="ignoringInput")
    quiet = [told(before="1") for _ in range(5)]
    talk = [BEGUN, SAID, told(busy), *quiet, told(message("here"), before="1", after="2"), told(before="2"), told(before="2")]
    events = await asked("direct-line", OPTIONS, talk)
    assert isinstance(events[-1], Done)
    assert outcome(events)["artifacts"] == [{"text": "one moment"}, {"text": "here"}]


async def test_the_next_turn_goes_on_from_the_watermark_that_this_one_came_to() -> None:
    first = await asked("direct-line", OPTIONS, [BEGUN, SAID, told(message("yes"), after="7"), told(before="7"), told(before="7")])
    kept = last_ref(first)
    assert (kept.context_id, kept.over) == ("c-1", False)
    asking = message("sure?", inputHint="expectingInput", replyToId="")
    then = await asked("direct-line", OPTIONS, [SAID, told(asking, before="7", after="9")], ref=kept)
    assert outcome(then)["state"] == "INPUT_REQUIRED"
    answer = exchange("POST", ACTIVITIES, {"text": "yes"}, json={"id": "a-2"})
    bye = {"type": "endOfConversation", "code": "completedSuccessfully", "from": {"id": "bot"}}
    last = [answer, told(message("done", replyToId="a-2"), bye, before="9", after="9")]
    ended = await asked("direct-line", OPTIONS, last, ref=last_ref(then), answers=(Answer(Prompt("m-sure?"), "yes"),))
    assert isinstance(ended[-1], Done) and last_ref(ended).over, "what a bot ended is not gone on with"


async def test_who_the_person_is_comes_from_the_token_and_never_from_the_message() -> None:
    stolen = exchange("POST", ACTIVITIES, {"from": {"id": "admin"}}, json={"id": "a-1"})
    egress = ReplayEgress((BEGUN, stolen, told(message("yes", inputHint="expectingInput"))), {})
    await asked("direct-line", OPTIONS, egress, send={"data": {"from": {"id": "admin"}}})
    assert any(".from.id is 'u-" in problem for problem in egress.problems)


async def test_what_a_person_says_under_another_id_is_no_answer_of_the_bot() -> None:
    """Else the bot would seem to have spoken, and its turn would be over before it said anything."""
    echo = {"type": "message", "text": "hello", "from": {"id": "renamed", "role": "user"}}
    talk = [BEGUN, SAID, told(echo), told(before="1"), told(before="1"), told(message("yes", inputHint="expectingInput"), before="1")]
    assert outcome(await asked("direct-line", OPTIONS, talk))["state"] == "INPUT_REQUIRED"


def regional(where: str) -> list[dict[str, Any]]:
    settings = urlsplit(SETTINGS)
    return [exchange("GET", f"{settings.path}?{settings.query}", json={"channelUrlsById": {"directline": where}})]


async def test_the_secret_goes_only_to_direct_line_in_the_conversations_region() -> None:
    seen = Seen(*regional("http://europe.vendor.test/"), BEGUN, SAID, told(message("yes", inputHint="expectingInput")))
    events = await asked("direct-line", {**OPTIONS, "settings": SETTINGS}, seen)
    assert seen.problems == []
    assert seen.seen == [(SETTINGS, False), *(("http://europe.vendor.test" + CONVERSATIONS + each, True) for each in ("", THERE, THERE))]
    then = Seen(SAID, told(message("bye", inputHint="expectingInput"), before="1"))
    await asked("direct-line", {**OPTIONS, "settings": SETTINGS}, then, ref=last_ref(events))
    assert [url for url, _ in then.seen] == ["http://europe.vendor.test" + ACTIVITIES, f"http://europe.vendor.test{ACTIVITIES}?watermark=1"]


@pytest.mark.parametrize(
    "where",
    [
        "http://vendor.test.evil.example/",
        "http://evilvendor.test/",
        "https://europe.vendor.test/",
        "http://europe.vendor.test:8080/",
        "http://me@europe.vendor.test/",
        "http://europe.vendor.test/there?x=1",
    ],
)
async def test_the_secret_follows_no_address_outside_of_the_agents_own_host(where: str) -> None:
    seen = Seen(*regional(where))
    events = await asked("direct-line", {**OPTIONS, "settings": SETTINGS}, seen)
    assert isinstance(events[-1], Failed) and events[-1].kind == InvalidAnswer.kind
    assert seen.seen == [(SETTINGS, False)]


async def test_a_briefly_unreachable_direct_line_is_retried_and_a_refusing_one_is_not() -> None:
    away = exchange("GET", ACTIVITIES, status=429)
    events = await asked("direct-line", OPTIONS, [BEGUN, SAID, away, told(message("yes", inputHint="expectingInput"))])
    assert outcome(events)["state"] == "INPUT_REQUIRED"
    refused = await asked("direct-line", OPTIONS, [exchange("POST", CONVERSATIONS, {}, 403, {"error": {"code": "BadArgument"}})])
    assert isinstance(refused[-1], Failed)


async def test_a_turn_is_not_said_to_be_stopped() -> None:
    assert await canceled("direct-line", OPTIONS, [], VendorRef("c-1")) is CancelOutcome.UNSUPPORTED
