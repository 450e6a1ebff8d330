"""Whose requests carry a token, before the token is read."""

from policies.tokens.owners import KEPT_SECONDS, TOKENS_MAX, TokenOwners


def test_the_owner_of_a_token_is_known_for_an_hour() -> None:
    now = [0.0]
    owners = TokenOwners(lambda: now[0])
    owners.remember("token", "t|i|ann")
    now[0] = KEPT_SECONDS - 1
    assert (owners.find("token"), owners.find("other")) == ("t|i|ann", "")
    now[0] = KEPT_SECONDS
    assert owners.find("token") == ""


def test_the_oldest_tokens_are_forgotten_first() -> None:
    owners = TokenOwners(lambda: 0.0)
    for number in range(TOKENS_MAX + 1):
        owners.remember(f"token-{number}", "t|i|ann")
    assert owners.find("token-0") == "" and owners.find("token-1") and owners.find(f"token-{TOKENS_MAX}")


def test_tokens_are_not_kept() -> None:
    owners = TokenOwners(lambda: 0.0)
    owners.remember("secret-token", "t|i|ann")
    assert "secret-token" not in repr(vars(owners)) and all(isinstance(key, int) for key in owners._owners._entries)
