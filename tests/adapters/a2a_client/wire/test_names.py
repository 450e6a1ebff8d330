"""Names of members: JSON's and those of the .proto file mean the same, and what is the sender's own stays as it is."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adapters.a2a_client.wire.v1 import to_json_name, with_json_names

NAMES = st.sampled_from(["messageId", "context_id", "page_size", "data", "metadata", "parts", "a_b_c", "urn:x_y", "_", "", "A_B"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def snake_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in name): m if name in ("data", "metadata") else snake_of(m)
            for name, m in value.items()
        }
    return [snake_of(member) for member in value] if isinstance(value, list) else value


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_to_name_twice_is_to_name_once(value: Any) -> None:
    once = with_json_names(value)
    assert with_json_names(once) == once


@given(st.dictionaries(st.sampled_from(["messageId", "contextId", "data", "metadata", "parts", "taskId"]), JSON, max_size=4))
def test_what_has_its_names_already_is_not_copied(value: Any) -> None:
    plain = {name: 1 if isinstance(member, dict | list) else member for name, member in value.items()}
    assert with_json_names(plain) is plain
    assert with_json_names(snake_of(plain)) == plain


def test_what_is_the_senders_own_stays() -> None:
    given = {"context_id": "c", "metadata": {"a_b": {"c_d": 1}}, "parts": [{"data": {"e_f": [{"g_h": 1}]}, "media_type": "x"}]}
    assert with_json_names(given) == {
        "contextId": "c",
        "metadata": {"a_b": {"c_d": 1}},
        "parts": [{"data": {"e_f": [{"g_h": 1}]}, "mediaType": "x"}],
    }


def test_of_two_names_for_one_member_that_of_json_counts() -> None:
    assert with_json_names({"pageSize": 1, "page_size": 2}) == with_json_names({"page_size": 2, "pageSize": 1}) == {"pageSize": 1}


def test_a_name_without_a_letter_after_its_line_stays() -> None:
    assert [to_json_name(name) for name in ("_", "a_", "_a", "a_b", "history_length")] == ["_", "a_", "_a", "aB", "historyLength"]
