"""Answers that hold a credential are refused, wherever in a text it begins."""

import pytest

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import Message, Part, Role
from gateway.calls.consent.credential_scan import check_no_credential

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


def answer(text: str) -> Message:
    return Message("m1", Role.USER, (Part(text=text),))


def is_refused(text: str) -> bool:
    try:
        check_no_credential(answer(text))
    except BadMessage:
        return True
    return False


@pytest.mark.parametrize(
    "text", [JWT, f"it is {JWT}.", f"key-{JWT}", f"eyJ.eyJ-{JWT}", f"a.{JWT}", "Bearer abcdefghijklmnop", "password: hunter22"]
)
def test_a_credential_is_found(text: str) -> None:
    with pytest.raises(BadMessage, match="credential"):
        check_no_credential(answer(text))


@pytest.mark.parametrize("text", ["", "yes", "eyJ" * 1000, "eyJabcdefgh.short.x", f"{JWT[:20]} {JWT[20:30]}", "the password is new"])
def test_other_texts_pass(text: str) -> None:
    assert not is_refused(text)
