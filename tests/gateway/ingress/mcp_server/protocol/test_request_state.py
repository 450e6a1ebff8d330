"""Sealed states: any process opens them, for a while, for what they were given for."""

from pathlib import Path

import pytest

from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import Seal, Sealed, binding
from policies.keys.signing import SigningKeys
from tests.fakes.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_another_process_opens_it_until_its_time_is_over(tmp_path: Path, clock: Clock) -> None:
    one, other = (Seal(SigningKeys.open(tmp_path, clock), clock) for _ in range(2))
    text = one.close(Sealed(clock.now + 10, "theirs"), b"bound")
    assert other.open(text, b"bound").upstream == "theirs"
    clock.now += 11
    with pytest.raises(BadEnvelope):
        other.open(text, b"bound")


def test_a_replaced_key_goes_on_opening_where_it_was_known_and_seals_no_more(tmp_path: Path, clock: Clock) -> None:
    keys = SigningKeys.open(tmp_path, clock)
    other = Seal(SigningKeys.open(tmp_path, clock), clock)
    seal = Seal(keys, clock)
    before = seal.close(Sealed(clock.now + 60, "a"), b"")
    keys.rotate()
    after = seal.close(Sealed(clock.now + 60, "b"), b"")
    clock.now += 2  # the other process looks at its keys once a second
    assert before.partition(".")[0] != after.partition(".")[0]
    for each in (seal, other):
        assert (each.open(before, b"").upstream, each.open(after, b"").upstream) == ("a", "b")
    assert other.close(Sealed(0.0), b"").partition(".")[0] == after.partition(".")[0]


def test_the_key_is_no_other_key_and_no_state_looks_like_another(tmp_path: Path, clock: Clock) -> None:
    keys = SigningKeys.open(tmp_path, clock)
    assert keys.derived("a")[1] != keys.derived("b")[1] and len(keys.derived("a")[1]) == 32
    assert keys.derived("a") == SigningKeys.open(tmp_path, clock).derived("a")
    seal = Seal(keys, clock)
    assert seal.close(Sealed(1.0), b"") != seal.close(Sealed(1.0), b"")


def test_what_a_state_is_bound_to_is_all_that_the_request_says_but_its_answers() -> None:
    params = {"name": "x", "arguments": {"b": 1, "a": 2}}
    bound = binding("h", "/mcp", "tools/call", params)
    more = {"arguments": {"a": 2, "b": 1}, "name": "x", "_meta": {"t": 1}, "requestState": "s", "inputResponses": {"k": {}}}
    assert binding("h", "/mcp", "tools/call", more) == bound
    others = [
        binding("i", "/mcp", "tools/call", params),
        binding("h", "/mcp/x", "tools/call", params),
        binding("h", "/mcp", "prompts/get", params),
        binding("h", "/mcp", "tools/call", {**params, "name": "y"}),
        binding("h", "/mcp", "tools/call", {**params, "arguments": {"a": 2, "b": "1"}}),
    ]
    assert bound not in others and len(set(others)) == len(others)
