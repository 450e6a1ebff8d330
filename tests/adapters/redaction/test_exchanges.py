"""What a try shows of a call's exchanges: bounded, without secrets, and nothing of what did not carry the call."""

import asyncio
import base64
import html
from typing import Any

import pytest

from adapters.redaction.exchanges import (
    BODY_MAX,
    CURRENT_RECORDER,
    EXCHANGES_MAX,
    OWN_SECRETS_MAX,
    ExchangeRecorder,
    begin_exchange,
    note_decision,
    recording_with,
)
from adapters.upstream.egress import Egress
from tests.fakes.a2a_agents import serving

SECRET = "s3cret/with+signs=="
MARKED = "s3cret<&>'\"signs"


def test_a_secret_of_a_header_is_masked_in_every_body_and_encoding() -> None:
    recorder = ExchangeRecorder()
    first = recorder.begin("POST x", {"Authorization": f"Bearer {SECRET}", "content-type": "text/plain"}, b"")
    second = recorder.begin("POST y", {"X-Own-Name": SECRET}, SECRET.encode())
    assert first is not None and second is not None
    first.begin_response(200, {"set-cookie": "sid=abcdefghijk", "server": "x"})
    first.add_body(b"you sent s3cret%2Fwith%2Bsigns%3D%3D and your cookie is sid=abcdefghijk")
    shown = str(recorder.exchanges())
    assert SECRET not in shown and "s3cret%2F" not in shown and "abcdefghijk" not in shown
    assert "Bearer ***" in shown and "text/plain" in shown


def test_what_is_within_a_header_is_masked_by_itself_too() -> None:
    """A server that echoes the password of Basic, or the value of a cookie, shows it without what stood around it."""
    recorder = ExchangeRecorder()
    basic = base64.b64encode(b"service:hunter2-hunter2").decode()
    record = recorder.begin("POST x", {"Authorization": f"Basic {basic}", "Cookie": "a=first-cookie; b=second-cookie"}, b"")
    assert record is not None
    record.begin_response(401, {"set-cookie": "sid=third-cookie; Path=/; HttpOnly"})
    record.add_body(b"hunter2-hunter2 is wrong; first-cookie second-cookie third-cookie")
    shown = str(recorder.exchanges())
    assert not any(secret in shown for secret in ("hunter2", "first-cookie", "second-cookie", "third-cookie"))


@pytest.mark.parametrize("written", [html.escape(MARKED), html.escape(MARKED, quote=False)])
def test_a_secret_on_a_page_of_html_is_masked(written: str) -> None:
    recorder = ExchangeRecorder()
    record = recorder.begin("POST x", {"X-Api-Key": MARKED}, b"")
    assert record is not None
    record.add_body(f"<p>You sent {written}</p>".encode())
    assert written not in str(recorder.exchanges())


def test_bytes_that_are_no_text_in_a_header_are_masked_too() -> None:
    """The client of streams decodes headers with surrogateescape."""
    recorder, raw = ExchangeRecorder(), b"sid=\xff\xfe-cookie"
    record = recorder.begin("POST x", {}, b"")
    assert record is not None
    cookie = raw.decode("utf-8", "surrogateescape")
    record.begin_response(200, {"set-cookie": cookie, "www-authenticate": "Basic \udcff", "server": "\udcff"})
    record.add_body(b"you sent \xff\xfe-cookie")
    (exchange,) = recorder.exchanges()
    assert exchange.response.text == "you sent ***"


def test_a_header_that_is_shown_does_not_show_the_secret_of_another() -> None:
    recorder = ExchangeRecorder()
    record = recorder.begin(f"POST https://x.example/{SECRET}", {"X-Api-Key": SECRET, "mcp-name": f"tool {SECRET}"}, b"")
    assert record is not None
    record.begin_response(200, {"server": f"echo {SECRET}"})
    assert SECRET not in str(recorder.exchanges())


def test_the_body_of_a_response_with_very_many_secrets_is_not_shown() -> None:
    """Each has to be searched for in many encodings, at each picture of the call."""
    recorder = ExchangeRecorder()
    record = recorder.begin("POST x", {}, b"")
    assert record is not None
    record.begin_response(200, {f"x-{number}": f"value-{number}-of-many" for number in range(OWN_SECRETS_MAX)})
    record.add_body(b"all of them: value-49-of-many")
    assert recorder.exchanges()[0].response.text == "all of them: ***"
    record.begin_response(200, {f"x-{number}": f"value-{number}-of-many" for number in range(OWN_SECRETS_MAX + 1)})
    assert recorder.exchanges()[0].response.text == "***"


def test_an_exchange_that_has_not_changed_is_masked_once() -> None:
    recorder = ExchangeRecorder()
    first, second = (recorder.begin("POST x", {"X-Api-Key": SECRET}, SECRET.encode()) for _ in range(2))
    assert first is not None and second is not None
    before = recorder.exchanges()
    second.add_body(SECRET.encode())
    after = recorder.exchanges()
    assert after[0] is before[0] and after[1].response.text == "***"
    recorder.begin("POST y", {"X-Api-Key": "another-secret"}, b"")
    assert recorder.exchanges()[0] is not before[0]


def test_a_secret_at_the_end_of_what_is_shown_is_masked_whole() -> None:
    recorder = ExchangeRecorder()
    record = recorder.begin("POST x", {"Authorization": SECRET}, b"a" * (BODY_MAX - 6) + SECRET.encode())
    assert record is not None
    (exchange,) = recorder.exchanges()
    assert "s3c" not in exchange.request.text and exchange.request.is_cut


def test_a_huge_body_is_counted_and_not_kept() -> None:
    recorder = ExchangeRecorder()
    record = recorder.begin("POST x", {}, b"")
    assert record is not None
    for _ in range(50):
        record.add_body(b"x" * (1 << 20))
    (exchange,) = recorder.exchanges()
    assert (exchange.response.size, len(exchange.response.text)) == (50 << 20, BODY_MAX)


def test_no_more_than_the_limit_is_recorded_and_nothing_after_the_end() -> None:
    recorder = ExchangeRecorder()
    records = [recorder.begin(f"POST {number}", {}, b"") for number in range(EXCHANGES_MAX + 3)]
    assert (records.count(None), recorder.left_out, len(recorder.exchanges())) == (3, 3, EXCHANGES_MAX)
    recorder.close()
    assert recorder.begin("POST late", {}, b"") is None and recorder.exchanges() == []


async def test_only_the_calls_of_this_context_are_recorded() -> None:
    recorder = ExchangeRecorder()

    async def call(name: str) -> None:
        begin_exchange(name, {}, b"")
        note_decision(f"d_{name}")

    await call("before")
    with recording_with(recorder):
        mine = asyncio.create_task(call("mine"))
    await mine
    await asyncio.create_task(call("after"))
    assert [exchange.start for exchange in recorder.exchanges()] == ["mine"]
    assert recorder.decision_id == "d_mine" and CURRENT_RECORDER.get() is None


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_is_recorded_only_where_it_carries_a_call(streamed: bool) -> None:
    """A request for a token has its secrets in the body, so it must not be shown."""
    async with serving(_answer) as url:
        egress, recorder = Egress(("127.0.0.1",)), ExchangeRecorder()
        with recording_with(recorder):
            for carries_call in (False, True):
                if streamed:
                    async with egress.stream("POST", f"{url}?q=1", headers={}, body=b"hi", timeout=9, carries_call=carries_call) as answer:
                        await answer.read()
                else:
                    await egress.request("POST", f"{url}?q=1", headers={}, body=b"hi", carries_call=carries_call)
        (exchange,) = recorder.exchanges()
        assert (exchange.start, exchange.request.text, exchange.status, exchange.response.text) == (f"POST {url}", "hi", 200, "hello")
        await egress.close()


async def _answer(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
