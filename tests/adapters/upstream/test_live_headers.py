"""Headers of a call that outlives its credential: each request reads one that is good, also through what adapters add."""

import itertools

from adapters.upstream.live_headers import SENT_MAX, LiveHeaders, sent_values, with_more


class Minting:
    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count(1)

    def headers(self) -> LiveHeaders:
        return LiveHeaders({"traceparent": "t"}, "Authorization", lambda: f"Bearer {next(self._numbers)}", 60, lambda: self.now)


def test_a_credential_is_made_anew_once_it_is_old() -> None:
    minting = Minting()
    headers = minting.headers()
    assert {**headers} == {"traceparent": "t", "Authorization": "Bearer 1"}
    minting.now = 59.9
    assert headers["Authorization"] == "Bearer 1"
    minting.now = 60
    assert {**headers}["Authorization"] == headers["Authorization"] == "Bearer 2"
    minting.now = 500
    assert dict(headers.items()) == {"traceparent": "t", "Authorization": "Bearer 3"}


def test_what_is_added_counts_and_what_it_is_added_to_stays_alive() -> None:
    minting = Minting()
    more = with_more(minting.headers(), {"X-Session": "s", "traceparent": "u"})
    minting.now = 60
    assert {**more} == {"traceparent": "u", "X-Session": "s", "Authorization": "Bearer 2"}


def test_who_brings_a_credential_of_their_own_sends_that() -> None:
    assert with_more(Minting().headers(), {"Authorization": "Bearer own"})["Authorization"] == "Bearer own"


def test_every_credential_that_was_sent_is_known_and_none_is_made_to_tell_them() -> None:
    minting = Minting()
    headers = with_more(minting.headers(), {"X-Session": "s"})
    minting.now = 60
    assert headers["Authorization"] == "Bearer 2"
    minting.now = 120
    assert sorted(sent_values(headers)) == [
        ("Authorization", "Bearer 1"),
        ("Authorization", "Bearer 2"),
        ("X-Session", "s"),
        ("traceparent", "t"),
    ]
    assert headers["Authorization"] == "Bearer 3"


def test_a_call_of_many_hours_remembers_a_few_credentials() -> None:
    minting = Minting()
    headers = minting.headers()
    for _ in range(100):
        minting.now += 60
        assert headers["Authorization"]
    assert len([name for name, _ in sent_values(headers) if name == "Authorization"]) == SENT_MAX
