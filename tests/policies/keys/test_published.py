"""Public keys in a file: they verify what the gateway signed, and nothing that it did not."""

from pathlib import Path
from typing import Any

import pytest

from policies.keys.jwks import BadKeySet
from policies.keys.published import NotSignedByPublishedKey, PublishedKeys
from policies.keys.signing import SigningKeys
from tests.fakes.issuer import ABSENT, EcKey, RsaKey, compact

TYPE = "interlock-audit-head+jwt"
KEY = EcKey("k1")


def statement(key: EcKey | RsaKey = KEY, **header: Any) -> str:
    heading = {"alg": key.alg, "kid": key.kid, "typ": TYPE, **header}
    return compact({name: value for name, value in heading.items() if value is not ABSENT}, {"seq": 1}, key.sign)


def test_a_statement_of_any_key_there_ever_was_is_verified(keys: SigningKeys) -> None:
    first = keys.sign({"seq": 1}, TYPE)
    keys.rotate()
    second = keys.sign({"seq": 2}, TYPE)
    published = PublishedKeys(keys.all_jwks())
    assert [published.verify(text, TYPE) for text in (first, second)] == [{"seq": 1}, {"seq": 2}]


def test_more_keys_count_than_a_key_set_may_hold() -> None:
    published = PublishedKeys({"keys": [*(KEY.jwk(kid=f"old{number}") for number in range(60)), KEY.jwk()]})
    assert published.verify(statement(kid="old0"), TYPE) == published.verify(statement(), TYPE) == {"seq": 1}


def test_a_type_is_the_same_in_capitals() -> None:
    published = PublishedKeys({"keys": [KEY.jwk()]})
    assert published.verify(statement(typ=TYPE.upper()), TYPE) == published.verify(statement(), TYPE.upper()) == {"seq": 1}


WRONG: dict[str, tuple[str, str]] = {
    "another key": (statement(EcKey("k1")), "signature"),
    "a key that is not there": (statement(kid="k2"), "kid"),
    "no kid": (statement(kid=ABSENT), "kid"),
    "another algorithm": (statement(alg="RS256"), "alg"),
    "no algorithm": (statement(alg="none"), "alg"),
    "a key that it brings": (statement(jwk=KEY.jwk()), "header"),
    "another type": (statement(typ="at+jwt"), "type"),
    "no type": (statement(typ=ABSENT), "type"),
    "no statement": ("a.b.c", "shape"),
    "nothing": ("", "shape"),
}


@pytest.mark.parametrize(("text", "why"), WRONG.values(), ids=WRONG.keys())
def test_what_none_of_these_keys_signed_is_refused(text: str, why: str) -> None:  # attack LOG-04
    with pytest.raises(NotSignedByPublishedKey) as refused:
        PublishedKeys({"keys": [KEY.jwk()]}).verify(text, TYPE)
    assert str(refused.value) == why


NO_KEYS: dict[str, object] = {
    "nothing": None,
    "a list": [KEY.jwk()],
    "a text": "keys",
    "no member": {},
    "an empty list": {"keys": []},
    "an object": {"keys": {"k1": KEY.jwk()}},
    "null": {"keys": None},
    "one that is unusable": {"keys": [KEY.jwk(), {}]},
    "one that is no object": {"keys": [KEY.jwk(), "k"]},
    "one of another kind than ours": {"keys": [KEY.jwk(), RsaKey().jwk()]},
    "a secret half": {"keys": [KEY.jwk(d=KEY.secret_member())]},
}


@pytest.mark.parametrize("document", NO_KEYS.values(), ids=NO_KEYS.keys())
def test_a_file_with_anything_else_than_our_public_keys_is_refused(document: object) -> None:
    with pytest.raises(BadKeySet):
        PublishedKeys(document)


def test_keys_of_another_home_verify_nothing(keys: SigningKeys, tmp_path: Path) -> None:
    foreign = PublishedKeys(SigningKeys.open(tmp_path / "foreign").all_jwks())
    with pytest.raises(NotSignedByPublishedKey, match="kid"):
        foreign.verify(keys.sign({"seq": 1}, TYPE), TYPE)
