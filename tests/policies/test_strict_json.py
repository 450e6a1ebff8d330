"""JSON from strangers: what two readers could read differently, or what costs too much to read, is refused."""

import json
from typing import Any

import pytest
from hypothesis import given

from policies.strict_json import BadJson, parse
from tests.fakes.patience import cpu_seconds
from tests.strategies import json_values

REFUSED = {
    "nothing": b"",
    "half": b'{"a":',
    "two texts": b"1 2",
    "bad UTF-8": b'"\xff"',
    "a cut character": b'"\xc3"',
    "a byte order mark": b"\xef\xbb\xbf1",
    "UTF-16": '"a"'.encode("utf-16"),
    "a key twice": b'{"a":1,"a":1}',
    "a key twice, once escaped": b'{"a":1,"\\u0061":2}',
    "a key twice, deep": b'[{"b":{"a":1,"a":2}}]',
    "NaN": b"[NaN]",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "1e400": b"[1e400]",
    "minus 1e400": b"-1e400",
    "309 digits": b"1" * 309,
    "5000 digits": b"1" * 5000,
    "5000 digits below zero": b"-" + b"1" * 5000,
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate in a key": b'{"\\uDFFF":1}',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "a line feed in a text": b'"a\nb"',
    "65 levels": b"[" * 65 + b"]" * 65,
    "65 levels of both kinds": b'{"a":[' * 33 + b"]}" * 33,
    "10,000 levels": b"[" * 10_000 + b"]" * 10_000,
    "100,000 levels that never close": b"[" * 100_000,
    "brackets that do not match": b"[}" * 100,
    "brackets that begin with the end": b"]" * 100 + b"[" * 100,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_strict_json_is_refused(raw: bytes) -> None:  # attack PRO-04
    with pytest.raises(BadJson):
        parse(raw)


NUMBERS = {
    "308 digits": (b"9" * 308, int("9" * 308)),
    "307 digits below zero": (b"-" + b"9" * 307, -int("9" * 307)),
    "the largest float": (b"1.7976931348623157e308", 1.7976931348623157e308),
    "nothing left of it": (b"1e-400", 0.0),
    "many decimals": (b"0." + b"3" * 400, 1 / 3),
}


@pytest.mark.parametrize(("raw", "value"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_are_read_to_their_limits(raw: bytes, value: float) -> None:
    assert parse(raw) == value
    assert type(parse(raw)) is type(value)


WHY = {
    "keys": (b'{"a":{"secret":1,"secret":2}}', "same key twice"),
    "NaN": (b'{"secret":NaN}', "NaN"),
    "a float": (b'{"secret":1e999}', "not finite"),
    "an integer": (b'{"secret":' + b"7" * 309 + b"}", "too long"),
    "encoding": (b'{"secret":"\xff"}', "not UTF-8"),
    "syntax": (b'{"secret":}', "not JSON"),
    "depth": (b'{"secret":' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64"),
    "surrogates": (b'{"secret":"\\ud800"}', "surrogate"),
}


@pytest.mark.parametrize(("raw", "why"), WHY.values(), ids=WHY.keys())
def test_a_refusal_says_why_and_quotes_nothing(raw: bytes, why: str) -> None:
    with pytest.raises(BadJson, match=why) as refused:
        parse(raw)
    assert "secret" not in str(refused.value) and "777" not in str(refused.value)


def test_surrogates_in_pairs_are_one_character() -> None:
    assert parse(b'{"\\uD83D\\uDE00": "\\ud83d\\ude00"}') == {"\U0001f600": "\U0001f600"}


def test_64_levels_are_read_whatever_stands_in_texts() -> None:
    assert parse(b"[" * 64 + b"]" * 64)
    brackets = json.dumps(["[" * 1000, '\\"[{' * 100, {"[{": "]"}]).encode()
    assert parse(brackets) == json.loads(brackets)


@given(json_values)
def test_whatever_json_can_say_is_read_as_everybody_reads_it(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse(text.encode()) == json.loads(text)


# attack PRO-04: texts that a careless look at brackets reads again and again
@pytest.mark.parametrize(
    "raw",
    [b'"' + b'\\"' * 500_000 + b"[]" * 65, b"[" * 1_000_000, b"[" * 65 + b'"",' * 300_000, b"[" * 65 + b'"' + b"\\\\" * 500_000],
    ids=["escaped quotes", "open brackets", "many texts", "escaped backslashes"],
)
def test_a_million_hostile_bytes_cost_little(raw: bytes) -> None:
    with cpu_seconds(10), pytest.raises(BadJson):
        parse(raw)
