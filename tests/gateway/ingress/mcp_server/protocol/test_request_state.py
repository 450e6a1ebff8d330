"""Sealed states: any process opens them, for a while, for what they were given for."""

from pathlib import Path

import pytest

from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import RequestState, RequestStateCipher, state_context
from policies.keys.signing import SigningKeys
from tests.fakes.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_another_process_opens_it_until_its_time_is_over(tmp_path: Path, clock: Clock) -> None:
    one, other = (RequestStateCipher(SigningKeys.open(tmp_path, clock), clock) for _ in range(2))
    text = one.encrypt(RequestState(clock.now + 10, "theirs"), b"bound")
    assert other.decrypt(text, b"bound").upstream == "theirs"
    clock.now += 11
    with pytest.raises(BadEnvelope):
        other.decrypt(text, b"bound")


def test_a_replaced_key_goes_on_opening_where_it_was_known_and_seals_no_more(tmp_path: Path, clock: Clock) -> None:
    keys = SigningKeys.open(tmp_path, clock)
    other = RequestStateCipher(SigningKeys.open(tmp_path, clock), clock)
    seal = RequestStateCipher(keys, clock)
    before = seal.encrypt(RequestState(clock.now + 60, "a"), b"")
    keys.rotate()
    after = seal.encrypt(RequestState(clock.now + 60, "b"), b"")
    clock.now += 2  # the other process looks at its keys once a second
    assert before.partition(".")[0] != after.partition(".")[0]
    for each in (seal, other):
        assert (each.decrypt(before, b"").upstream, each.decrypt(after, b"").upstream) == ("a", "b")
    assert other.encrypt(RequestState(0.0), b"").partition(".")[0] == after.partition(".")[0]


def test_the_key_is_no_other_key_and_no_state_looks_like_another(tmp_path: Path, clock: Clock) -> None:
    keys = SigningKeys.open(tmp_path, clock)
    assert keys.derive_secret("a")[1] != keys.derive_secret("b")[1] and len(keys.derive_secret("a")[1]) == 32
    assert keys.derive_secret("a") == SigningKeys.open(tmp_path, clock).derive_secret("a")
    seal = RequestStateCipher(keys, clock)
    assert seal.encrypt(RequestState(1.0), b"") != seal.encrypt(RequestState(1.0), b"")


def test_what_a_state_is_bound_to_is_all_that_the_request_says_but_its_answers() -> None:
    params = {"name": "x", "arguments": {"b": 1, "a": 2}}
    bound = state_context("h", "/mcp", "tools/call", params)
    more = {"arguments": {"a": 2, "b": 1}, "name": "x", "_meta": {"t": 1}, "requestState": "s", "inputResponses": {"k": {}}}
    assert state_context("h", "/mcp", "tools/call", more) == bound
    others = [
        state_context("i", "/mcp", "tools/call", params),
        state_context("h", "/mcp/x", "tools/call", params),
        state_context("h", "/mcp", "prompts/get", params),
        state_context("h", "/mcp", "tools/call", {**params, "name": "y"}),
        state_context("h", "/mcp", "tools/call", {**params, "arguments": {"a": 2, "b": "1"}}),
    ]
    assert bound not in others and len(set(others)) == len(others)
