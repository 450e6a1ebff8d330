"""The rules for vendors' adapters, as functions that raise AssertionError with what they found instead."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, cast

from adapters.conformance.outcomes import matches_expectation, outcome
from adapters.conformance.playback import FixedResponseEgress, PlaybackEgress
from adapters.conformance.recordings import (
    BodyTransform,
    Expectation,
    in_one_chunk,
    recorded_frames,
    with_repeated_events,
    with_unknown_events,
)
from adapters.contract import Answer, Ask, Event, Failed, InvalidAnswer, Prompt, RefLearned, Turn, UpstreamFault, VendorRef
from adapters.task import Message, Part, Role
from adapters.upstream.egress import Egress
from adapters.vendors.sdk.agent import BadOptions, Features, PollingVendor, Vendor, VendorOptions, parse_events, parse_options
from adapters.vendors.sdk.answers import enforce_contract
from adapters.vendors.sdk.connection import VendorConnection, VendorEndpoint

URL: Final = "http://vendor.test"
SESSION: Final = "5f0c2a52-0000-5000-8000-000000000001"
USER: Final = "u-0001"
CREDENTIAL: Final = "operators-secret-key"
LEAKED_TEXT: Final = "Traceback at /srv/agents/secret-folder/app.py"  # part of damaged responses, and must not reach a caller
TURN_SECONDS: Final = 60.0
CUT_SIZES: Final = (0, 1, 40, 200)  # bytes after which a streamed response breaks


@dataclass(frozen=True)
class BadHttpResponse:
    """An invalid response, and the `kind` of failure that it must become. `%s` in the body is replaced by a text of the agent."""

    name: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    kind: str
    retryable: bool = False

    def __str__(self) -> str:
        return self.name


BAD_RESPONSES: Final = (
    BadHttpResponse("401", 401, {}, b'{"detail":"%s"}', "AGENT_REFUSES"),
    BadHttpResponse("403", 403, {}, b'{"detail":"%s"}', "AGENT_REFUSES"),
    BadHttpResponse("404", 404, {}, b'{"detail":"%s"}', "UPSTREAM"),
    BadHttpResponse("409", 409, {}, b'{"detail":"%s"}', "AGENT_BUSY", True),
    BadHttpResponse("422", 422, {}, b'{"detail":"%s"}', "UPSTREAM"),
    BadHttpResponse("423", 423, {"Retry-After": "3"}, b"%s", "AGENT_BUSY", True),
    BadHttpResponse("429", 429, {}, b"%s", "AGENT_BUSY", True),
    BadHttpResponse("429-after", 429, {"Retry-After": "7"}, b"%s", "AGENT_BUSY", True),
    BadHttpResponse("429-date", 429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"%s", "AGENT_BUSY", True),
    BadHttpResponse("500", 500, {"content-type": "text/plain"}, b"%s", "UPSTREAM"),
    BadHttpResponse("503", 503, {}, b"%s", "UPSTREAM"),
    BadHttpResponse("503-after", 503, {"Retry-After": "1"}, b"%s", "AGENT_BUSY", True),
    BadHttpResponse("redirect", 302, {"Location": "http://169.254.169.254/"}, b"%s", "UPSTREAM"),
    BadHttpResponse("html", 200, {"content-type": "text/html"}, b"<html>%s</html>", "INVALID_AGENT_RESPONSE"),
    BadHttpResponse("no-json", 200, {}, b"{%s", "INVALID_AGENT_RESPONSE"),
    BadHttpResponse("deep", 200, {}, b"[" * 100_000 + b"%s", "INVALID_AGENT_RESPONSE"),
    BadHttpResponse("list", 200, {}, b'["%s"]', "INVALID_AGENT_RESPONSE"),
    BadHttpResponse("other-shape", 200, {}, b'{"messages":"%s","output":7,"status":[],"choices":null}', "INVALID_AGENT_RESPONSE"),
)


def check_shape(vendor: Vendor) -> None:
    """Checks that the class has its own kind, features and options, and that its objects are stateless."""
    _check(vendor.kind and vendor.kind == vendor.kind.lower(), f"the kind {vendor.kind!r} is a word in small letters")
    _check(isinstance(vendor.features, Features), f"`features` is a Features, and not {vendor.features!r}")
    _check(issubclass(vendor.options, VendorOptions), f"`options` is a subclass of VendorOptions, and not {vendor.options!r}")
    _check(vars(vendor) == {}, f"an adapter must be stateless, but this one has {sorted(vars(vendor))}")
    _check(vendor.features.polls == isinstance(vendor, PollingVendor), "`features.polls` says whether there is a method `poll`")


def check_options(vendor: Vendor, expectation: Expectation) -> None:
    """Checks that an unknown option is refused by name."""
    try:
        parse_options(vendor, {**expectation.upstream, "no-such-option": 1})
    except BadOptions as refused:
        _check("no-such-option" in refused.field, f"the refusal names the option, and not {refused.field!r}")
    else:
        raise AssertionError("an unknown option was accepted: `options` has to forbid extra members, as VendorOptions does")


async def check_scenario(vendor: Vendor, expectation: Expectation, transform: BodyTransform = in_one_chunk) -> None:
    """Checks everything in an expectation: `turns`, `bodies`, `describe` and `cancel`. One without any of them fails.

    Together they must use every recorded exchange, except those in the expectation's `skip`.
    """
    expected = expectation.document
    _check(any(name in expected for name in ("turns", "bodies", "describe", "cancel")), f"{expectation} expects nothing")
    unused = [each for each in expectation.exchanges if each["seq"] not in expected.get("skip", ())]
    used = {body["seq"] for body in expected.get("bodies", ())}
    if "turns" in expected:
        used |= await check_turns(vendor, expectation, transform)
    for body in expected.get("bodies", ()):
        check_body(expectation, body, transform)
    if "describe" in expected:
        used |= await check_description(vendor, expectation)
    if "cancel" in expected:
        used |= await check_cancellation(vendor, expectation)
    left = [f"{each['seq']} {each['request']['method']} {each['request']['path']}" for each in unused if each["seq"] not in used]
    _check(not left, f"{expectation}: recorded, not in `skip`, and never asked for: {', '.join(left)}")


async def check_turns(vendor: Vendor, expectation: Expectation, transform: BodyTransform = in_one_chunk) -> set[int]:
    """Checks the outcomes and requests of the recorded turns. Returns the numbers of the exchanges that were used."""
    playback = PlaybackEgress(expectation.exchanges, expectation.document, transform)
    outcomes = await play_turns(vendor, expectation, playback)
    _check_requests(expectation, playback)
    _check_outcomes(expectation, outcomes)
    return playback.used


async def check_unknown_members(vendor: Vendor, expectation: Expectation) -> None:
    """Checks that unknown events and members change nothing."""
    _check_outcomes(expectation, (await play_scenario(vendor, expectation, with_unknown_events))[0])


async def check_repeats(vendor: Vendor, expectation: Expectation) -> None:
    """Checks that a repeated event causes no second ending."""
    outcomes, _ = await play_scenario(vendor, expectation, with_repeated_events)
    wanted, found = expectation.document["turns"][0]["state"], outcomes[0]["state"]
    _check(found == wanted, f"{expectation}: the first turn ends as {found}, and not as {wanted}, once every event arrives twice")


async def check_cuts(vendor: Vendor, expectation: Expectation) -> None:
    """Checks that a truncated stream is a failure, even after partial output."""
    for number in range(len(expectation.document["turns"])):
        for size in CUT_SIZES:
            outcomes, _ = await play_scenario(vendor, expectation, cut=(number, size))
            _check(outcomes[-1]["state"] == "FAILED", f"{expectation}: turn {number}, cut after {size} bytes, ends as {outcomes[-1]}")


def check_body(expectation: Expectation, body: Mapping[str, Any], transform: BodyTransform) -> None:
    """Checks a single recorded response with the reader that the expectation names."""
    module, _, name = body["reader"].partition(":")
    reader = getattr(import_module(module), name)(*body.get("arguments", ()))
    exchange = next(each for each in expectation.exchanges if each["seq"] == body["seq"])
    found = outcome(list(parse_events(reader, recorded_frames(exchange["response"], transform))))
    wanted = {name: value for name, value in body.items() if name not in ("seq", "reader", "arguments")}
    _check(matches_expectation(wanted, found), f"{expectation}, response {body['seq']}: expected {wanted}, found {found}")


async def check_description(vendor: Vendor, expectation: Expectation) -> set[int]:
    """Checks the result of `describe`. Returns the numbers of the exchanges that were used."""
    playback = PlaybackEgress(expectation.exchanges, expectation.document)
    facts = await vendor.describe(connection_to(vendor, expectation.upstream, playback))
    _check_requests(expectation, playback)
    wanted = dict(expectation.document["describe"])
    found = {name: getattr(facts, name) for name in wanted}
    _check(found == wanted, f"expected {wanted}, found {found}")
    return playback.used


async def check_cancellation(vendor: Vendor, expectation: Expectation) -> set[int]:
    """Checks the result of `cancel`. Returns the numbers of the exchanges that were used."""
    wanted = expectation.document["cancel"]
    playback = PlaybackEgress(expectation.exchanges, expectation.document)
    ref = VendorRef(wanted.get("context_id", ""), wanted.get("task_id", ""))
    found = await vendor.cancel(ref, connection_to(vendor, expectation.upstream, playback))
    _check_requests(expectation, playback)
    _check(found == wanted["outcome"], f"expected {wanted['outcome']!r}, found {found.value!r}")
    return playback.used


async def check_bad_response(vendor: Vendor, expectation: Expectation, response: BadHttpResponse) -> None:
    """Checks that an invalid response is a failure of its kind, whose public text reveals nothing internal."""
    headers = {"content-type": "application/json", **response.headers}
    ending = await _failing_turn(
        vendor, expectation, lambda: (response.status, headers, response.body.replace(b"%s", LEAKED_TEXT.encode()))
    )
    found, wanted = (ending.kind, ending.retryable), (response.kind, response.retryable)
    _check(found == wanted, f"expected {wanted}, found {found}: {ending}")
    _check("secret-folder" not in ending.reason and ending.message is None, f"callers would see {ending}")


async def check_credential(vendor: Vendor, expectation: Expectation) -> None:
    """Checks that a credential echoed by the agent is removed from the details for the log."""
    ending = await _failing_turn(vendor, expectation, lambda: (401, {}, f"bad key {CREDENTIAL}".encode()))
    _check(CREDENTIAL not in ending.detail, "the credential stands in the details of the failure")
    _check("bad key" in ending.detail, f"the details have the agent's words, and not {ending.detail!r}")


async def play_scenario(
    vendor: Vendor, expectation: Expectation, transform: BodyTransform = in_one_chunk, cut: tuple[int, int] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """The outcome of each turn, and the deviations from the recorded requests. `cut`: (turn, bytes) at which a streamed body breaks."""
    playback = PlaybackEgress(expectation.exchanges, expectation.document, transform)
    return await play_turns(vendor, expectation, playback, cut), playback.problems


async def play_turns(
    vendor: Vendor, expectation: Expectation, playback: PlaybackEgress, cut: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """The outcome of each turn of one conversation, up to the truncated one."""
    connection = connection_to(vendor, expectation.upstream, playback)
    outcomes: list[dict[str, Any]] = []
    ref: VendorRef | None = None
    prompts: tuple[Prompt, ...] = ()
    for number, each in enumerate(expectation.document["turns"]):
        playback.cut_after = cut[1] if cut and cut[0] == number else None
        answers = tuple(Answer(prompt, each["answers"][prompt.id]) for prompt in prompts) if "answers" in each else ()
        turn = Turn(build_message(each["send"]), ref, each.get("stream", True), answers=answers, session=SESSION)
        events = await collect_events(vendor, turn, connection)
        outcomes.append(outcome(events))
        ref = next((event.ref for event in reversed(events) if isinstance(event, RefLearned)), ref)
        prompts = events[-1].prompts if isinstance(events[-1], Ask) else ()
        if cut and cut[0] == number:
            break
    return outcomes


async def collect_events(vendor: Vendor, turn: Turn, connection: VendorConnection[Any]) -> list[Event]:
    """The events of one turn as the gateway gets them. A fault that the adapter raises becomes a Failed."""
    events: list[Event] = []
    try:
        async with asyncio.timeout(TURN_SECONDS), aclosing(enforce_contract(vendor.run(turn, connection), connection)) as arriving:
            async for event in arriving:
                events.append(event)
        if not events:
            raise InvalidAnswer("The agent's answer was cut off", "the adapter yielded no event")
    except UpstreamFault as fault:
        events.append(Failed(fault.public, detail=fault.detail, kind=fault.kind, retryable=fault.retryable))
    return events


def connection_to(vendor: Vendor, upstream: Mapping[str, Any], egress: object) -> VendorConnection[Any]:
    """A connection to an agent behind `egress`, with an operator's credential."""
    deadline = asyncio.get_running_loop().time() + TURN_SECONDS
    place = VendorEndpoint(URL, upstream, {"x-api-key": CREDENTIAL}, deadline, USER, SESSION)
    return VendorConnection(cast("Egress", egress), place, parse_options(vendor, upstream))


def build_message(content: Mapping[str, Any]) -> Message:
    """A person's message from `{"text"}`, `{"data"}` or `{"parts": [A2A parts]}`."""
    if "parts" in content:
        parts = tuple(Part(**{_python_name(name): value for name, value in each.items()}) for each in content["parts"])
    else:
        parts = (Part(text=content["text"]),) if "text" in content else (Part(data=content["data"]),)
    return Message("m-1", Role.USER, parts)


async def _failing_turn(vendor: Vendor, expectation: Expectation, answer: Callable[[], tuple[int, Mapping[str, str], bytes]]) -> Failed:
    turn = Turn(build_message({"text": "hello"}), session="s", stream=True)
    ending = (await collect_events(vendor, turn, connection_to(vendor, expectation.upstream, FixedResponseEgress(answer))))[-1]
    if not isinstance(ending, Failed):
        raise AssertionError(f"the turn has to fail, but ends with {ending}")
    return ending


def _check_outcomes(expectation: Expectation, outcomes: list[dict[str, Any]]) -> None:
    for number, (wanted, found) in enumerate(zip(expectation.document["turns"], outcomes, strict=True)):
        _check(matches_expectation(wanted, found), f"{expectation}, turn {number}: expected {wanted}, found {found}")


def _check_requests(expectation: Expectation, playback: PlaybackEgress) -> None:
    _check(not playback.problems, f"{expectation}: " + "\n".join(playback.problems))


def _check(condition: object, problem: str) -> None:
    if not condition:
        raise AssertionError(problem)


def _python_name(name: str) -> str:
    return {"mediaType": "media_type"}.get(name, name)
