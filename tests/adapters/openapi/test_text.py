"""The text of an OpenAPI document, JSON or YAML, becomes the same value."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.contract import UpstreamFault
from adapters.openapi import text as reader
from adapters.openapi.text import DOCUMENT_MAX, YAML_MAX, parse_document

texts = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


class QuotingDumper(yaml.SafeDumper):
    """Quotes every string, since the library knows YAML 1.1 alone: there the text 1e3 is no number."""


QuotingDumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(values)
@example(["1e3", "0o7"])
def test_yaml_says_what_json_says(value: Any) -> None:
    assert parse_document(yaml.dump({"a": value}, Dumper=QuotingDumper).encode()) == {"a": value}
    assert parse_document(json.dumps({"a": value}).encode()) == {"a": value}


def test_keys_and_words_are_those_of_yaml_1_2() -> None:
    text = b"200: {on: off}\nno: yes\ndate: 2020-01-01\nnone: ~\ntrue: True\nquoted: 'true'\ntagged: !!str 1\n"
    expected = {"200": {"on": "off"}, "no": "yes", "date": "2020-01-01", "none": None, "true": True, "quoted": "true", "tagged": "1"}
    assert parse_document(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"a: 1\na: 2\n",
        b"a: &a [x]\nb: *a\n",
        b"a: !!python/object/apply:os.system ['true']\n",
        b"? [a]\n: b\n",
        b"--- {}\n--- {}\n",
        b"a: " + b"[" * 70 + b"]" * 70,
        b"a: 1e999\n",
        b"a: [\n",
        b"\xff\xfe\x00",
    ],
)
def test_what_json_has_no_word_for_is_refused(text: bytes) -> None:  # attack PRO-12
    with pytest.raises(UpstreamFault):
        parse_document(text)


@pytest.mark.parametrize(
    ("text", "reason"), [(b'{"a": 1, "a": 2}', "the same key twice"), (b' [{"a": 1,}]', "not JSON"), (b"{a: b}", "not JSON")]
)
def test_text_that_begins_as_json_is_refused_for_what_is_wrong_with_the_json(text: bytes, reason: str) -> None:
    with pytest.raises(UpstreamFault, match="not JSON that the gateway accepts") as refused:
        parse_document(text)
    assert reason in refused.value.detail


# attack PRO-12
@pytest.mark.parametrize("line", [b"- {}\n", b"- []\n", b"- a\n"])
def test_yaml_has_as_many_members_as_are_allowed(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(reader, "MEMBERS_MAX", 100)
    assert len(parse_document(line * 99)) == 99  # and the list itself
    with pytest.raises(UpstreamFault, match="neither JSON nor YAML") as refused:
        parse_document(line * 100)
    assert "more than 100" in refused.value.detail


def test_documents_of_32_megabytes_are_read() -> None:
    assert DOCUMENT_MAX == 32 << 20
    filler = "x" * (DOCUMENT_MAX - 20)
    assert parse_document(b'{"a": "%s"}' % filler.encode())["a"] == filler
    if YAML_MAX == DOCUMENT_MAX:  # PyYAML has libyaml
        assert parse_document(b"a: %s" % filler.encode())["a"] == filler
