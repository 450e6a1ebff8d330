"""Secrets of upstream settings: shown as `stored:`, and kept only for the receiver that they were given for."""

from typing import Any

import pytest

from gateway.registration.requests import BadRequest
from gateway.registration.stored_secrets import STORED, find_differences, mask_secrets, refuse_stored, restore_secrets

AUTH = {"issuer": "https://i.example", "client_id": "c", "client_secret": "s1", "scopes": ["a"]}
PROVIDER = {"issuer": "https://p.example", "client_id": "p", "client_secret": "s2"}
KEPT: dict[str, Any] = {
    "headers": {"X-Any": "h"},
    "timeout": 3,
    "assistant": "echo",
    "auth": {**AUTH, "provider": PROVIDER},
    "aws": {"region": "eu", "secret_access_key": "k"},
    "settings": "https://user:pw@host.example/",
    "pairs": [{"name": "a", "token": "t"}],
}


def test_no_secret_is_shown_and_what_is_none_stays() -> None:
    shown = mask_secrets(KEPT)
    assert not {"h", "s1", "s2", "k", "t"} & set(str(shown).replace("'", " ").split()) and "pw@" not in str(shown)
    assert shown["auth"] == {**AUTH, "client_secret": STORED, "provider": {**PROVIDER, "client_secret": STORED}}
    assert (shown["timeout"], shown["assistant"], shown["aws"]) == (3, "echo", {"region": "eu", "secret_access_key": STORED})


def test_what_is_shown_restores_the_same_settings() -> None:
    assert restore_secrets(mask_secrets(KEPT), KEPT) == KEPT


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"headers": {"Other": STORED}}, "upstream.headers.Other"),
        ({"auth": {**AUTH, "issuer": "https://evil.example", "client_secret": STORED}}, "upstream.auth.client_secret"),
        ({"auth": {**AUTH, "client_id": "d", "client_secret": STORED}}, "upstream.auth.client_secret"),
        (
            {"auth": {**AUTH, "provider": {**PROVIDER, "issuer": "https://evil.example", "client_secret": STORED}}},
            "upstream.auth.provider.client_secret",
        ),
        ({"pairs": [{"token": STORED}, {"token": STORED}]}, "upstream.pairs.token"),
    ],
)
def test_a_stored_secret_goes_to_no_other_receiver(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        restore_secrets(settings, KEPT)
    assert refused.value.field == field and "give the value itself" in refused.value.problem


def test_a_new_entry_has_nothing_stored() -> None:
    refuse_stored({"headers": {"X": "stored"}})
    with pytest.raises(BadRequest, match="has no such value"):
        refuse_stored({"pairs": [{"token": STORED}]})


def test_differences_are_paths_without_values() -> None:
    changed = {**KEPT, "headers": {"X-Any": "new", "More": "m"}, "timeout": 4}
    assert find_differences(KEPT, changed, "upstream") == ["upstream.headers.More", "upstream.headers.X-Any", "upstream.timeout"]
