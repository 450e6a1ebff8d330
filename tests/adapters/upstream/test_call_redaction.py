"""Claims about credentials that an agent echoes in errors: none goes to the caller or to the log, renewed ones included."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import cast

import pytest
from msgspec.structs import replace

from adapters.contract import (
    AgentFault,
    Call,
    Canceled,
    Challenged,
    Done,
    Event,
    Failed,
    Progress,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.oauth.agents import authorize_adapter
from adapters.task import Message, Part, Role
from adapters.upstream.guarded import GuardedWatcher, guard
from adapters.upstream.live_headers import LiveHeaders
from tests.fakes.a2a_calls import call_to, turn

TOKENS = ("first-token-0001", "second-token-0002", "third-token-0003")
STATIC_KEY = "operators-key-0004"


def message(text: str) -> Message:
    return Message("m", Role.AGENT, (Part(text=text),))


class Renewals:
    """A call whose hop token is renewed each time that time moves on."""

    def __init__(self, delegation_header: str = "Authorization", fixed: Mapping[str, str] | None = None) -> None:
        self.now = 0.0
        tokens = iter(TOKENS)
        headers = LiveHeaders(fixed or {}, delegation_header, lambda: next(tokens), 60, lambda: self.now)
        self.call = replace(call_to("http://a.example/"), headers=headers)

    def send_requests(self) -> str:
        """Sends two requests, the second with a renewed token, and returns what an agent could echo of them."""
        seen = dict(self.call.headers)
        self.now += 60
        return " ".join([*seen.values(), *dict(self.call.headers).values()])


class Echo:
    """An adapter and watcher whose agent puts every credential that it saw into what `answer` makes of them."""

    def __init__(self, renewals: Renewals, answer: Callable[[str], Event | UpstreamFault]) -> None:
        self._renewals = renewals
        self._answer = answer

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Progress()
        answer = self._answer(self._renewals.send_requests())
        self._renewals.now += 59  # the answer comes shortly before another token is due
        if isinstance(answer, UpstreamFault):
            raise answer
        yield answer

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        raise UpstreamFault("no", self._renewals.send_requests())

    def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        return self.run(turn("hi"), call)


ANSWERS: tuple[Callable[[str], Event | UpstreamFault], ...] = (
    lambda seen: UpstreamFault("no", seen),
    lambda seen: AgentFault("AGENT_REFUSES", f"refused {seen}"),
    lambda seen: Challenged(401, "", seen),
    lambda seen: Failed(seen, message(seen), detail=seen, metadata={"seen": seen}),
    lambda seen: Canceled(message(seen)),
    lambda seen: Progress(detail=seen),
)


# attack LOG-02
@pytest.mark.parametrize("answer", ANSWERS, ids=["fault", "refusal", "challenge", "failure", "canceled", "log"])
@pytest.mark.parametrize("header", ["Authorization", "Interlock-Delegation"])
async def test_an_error_text_has_no_hop_token_that_was_renewed_meanwhile(
    answer: Callable[[str], Event | UpstreamFault], header: str
) -> None:
    for watched in (False, True):
        renewals = Renewals(header)
        adapter = cast("GuardedWatcher", guard(Echo(renewals, answer)))
        events = adapter.watch(VendorRef(), renewals.call) if watched else adapter.run(turn("hi"), renewals.call)
        texts = str([event async for event in events])
        assert "***" in texts
        assert not [token for token in TOKENS if token in texts]


# attack LOG-02
async def test_a_cancellation_that_fails_says_no_hop_token_either() -> None:
    renewals = Renewals()
    with pytest.raises(UpstreamFault) as fault:
        await guard(Echo(renewals, ANSWERS[0])).cancel(VendorRef(), renewals.call)
    assert fault.value.detail == "*** ***"


# attack LOG-02
@pytest.mark.parametrize("answer", [*ANSWERS, lambda seen: Done(message(seen))])
async def test_an_agent_with_headers_of_the_operator_gets_no_renewed_token_past_either(
    answer: Callable[[str], Event | UpstreamFault],
) -> None:
    renewals = Renewals(fixed={"X-Auth": STATIC_KEY})
    texts = ""
    try:
        async for event in authorize_adapter(Echo(renewals, answer), None).run(turn("hi"), renewals.call):
            texts += str(event)
    except UpstreamFault as fault:
        texts += f"{fault} {fault.public} {fault.detail}"
    assert "***" in texts
    assert not [secret for secret in (*TOKENS, STATIC_KEY) if secret in texts]


async def test_what_an_agent_answers_in_order_is_not_read_for_credentials() -> None:
    renewals = Renewals()
    said = Done(message("Bearer tokens are explained in RFC 6750"))
    events = [event async for event in guard(Echo(renewals, lambda _: said)).run(turn("hi"), renewals.call)]
    assert events[-1] is said
