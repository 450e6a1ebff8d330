"""What of an agent's failure callers may hear: plain sentences stay, and what tells how the agent is built does not."""

import base64
import time
from typing import Any

import pytest
from msgspec import UNSET

from adapters.contract import Progress
from adapters.redaction.error_text import (
    _INTERNAL_PATTERNS,
    BYTES_MAX,
    DETAIL_MAX,
    STACK_MAX,
    TEXT_MAX,
    ErrorTextFilter,
    filter_progress_text,
    reveals_internals,
)
from adapters.task import Artifact, Message, Part, Role

AT = "https://sales-7f9c.run.example/a2a"


def said(*parts: Part, **more: Any) -> Message:
    return Message("m", Role.AGENT, parts, **more)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "model exploded",
        "Agent execution failed",
        "Error executing assistant: ValueError",
        "The order 42 can't be placed: out of stock.",
        "Rejected, code=OUT_OF_STOCK",
        "I need a delivery date between 3/4/2025 and 12/4/2025, not before 10:30.",
        "check-in:15:00, order no:20931, Order:12345, ratio 3:1",
        "Choose economy/business and/or ask again, 24/7, n/a.",
        "Use /help for commands",
        "Node.js isn't supported; version 2.13.0 is",
        "See https://help.example.com/returns?id=42 (or https://example.org).",
        "The budget of 1.000.000.000 EUR or 1,000.50 is exceeded",
        "Please update your settings, and select one from the list.",
        "Delete from your cart what you don't need, and create a table for four",
        "Error 404: no such customer",
        "Ask sales@example.com",
        "the file report.csv is empty",
        "The basic subscription doesn't include it",
        "Your password has expired; this token too",
        "Der Auftrag konnte nicht ausgeführt werden: Größe fehlt.",
        "供应商没有库存",
        "- first\n- second\n\nSorry.",
        "Error: out of stock. Exception: none, TypeError",
        "An exception to the rule; no errors: none",
        "See www.PayPal.com or shop.MyStore.example, or ask IT.Then wait.",
        "It costs US$500, AUD$5 or Total$9; the U.S.A. Office. Ltd. Co.",
        "macOS, iPhone and JavaScript aren't supported by eBay.",
        "x" * TEXT_MAX,
    ],
)
def test_a_plain_sentence_is_left_alone(words: str) -> None:
    assert not reveals_internals(words, AT)


INTERNAL_TEXTS = [
    'Traceback (most recent call last):\n  File "run", line 3, in <module>\nValueError: x',
    "java.lang.NullPointerException: x\n\tat com.acme.Shop.place(Shop.java:12)",
    "TypeError: x is undefined\n    at Object.<anonymous> (index.js:1:2)",
    "   at Shop.Orders.Place(Order order)",
    "thread 'main' panicked at main.rs:3:5",
    "no https://files.example.com/a?X-Goog-Signature=0f3a&X-Goog-Date=1",
    "no https://files.example.com/a?apikey=abc",
    "see https://app.example.com/done#access_token=abc",
    "AccountKey=abcd==;EndpointSuffix=x",
    "user=admin pwd=hunter2",
    "x-api-key: abc",
    "goroutine 1 [running]:",
    "failed at /srv/agents/echo/agent.py",
    "cannot open /etc/passwd",
    "at:/var/lib/x",
    "no /tmp",
    "see ~/.aws/credentials",
    "C:\\Users\\bob is missing",
    "\\\\fileserver\\share",
    "src/flow.py failed",
    "agent.py:12: boom",
    "http://example.com is gone",
    "s3://bucket/key",
    "https://api.example.com/v1",
    "https://sales.corp.example.com",
    "https://example.com:8443/x",
    "https://me:word@example.com/",
    "https://mydb.abc.eu-west-1.rds.amazonaws.com/",
    f"POST {AT} failed",
    "sales-7f9c.run.example is gone",
    "Client error '429' for url 'https://example.com/v1'",
    "redis:6379 refused",
    "db.example.com:5432",
    "orders-db:5432",
    "billing-db:6033 refused",
    "db-1.prod.svc.cluster.local is gone",
    "localhost is down",
    "192.168.1.7",
    "fe80::1",
    "2001:db8:0:0:0:0:0:1",
    "arn:aws:iam::1:role/x",
    "[Errno 111] Connection refused",
    "getaddrinfo ENOTFOUND x",
    "sqlalchemy.exc.OperationalError: x",
    "openai.RateLimitError: no",
    "<class 'ValueError'>",
    "psycopg.errors.UndefinedTable",
    "asyncpg.UndefinedTable.",
    "requests.ConnectTimeout",
    "acme.orders.Timeout",
    "no answer of client.orders.create(42)",
    "Acme.Shop.OrderService",
    "com.acme.Foo$Bar",
    "no Foo$Bar here",
    "NullPointerException",
    "got a DOMException today",
    "KeyError: 'x'",
    "KeyError 'x'",
    "ValueError('x')",
    "ParseIntError { kind: Empty }",
    "caused by:\nTypeError: x is not a function",
    "<foo object at 0x7f3a2b>",
    "std::bad_alloc",
    "SELECT id\nFROM orders",
    "select id from orders where x",
    "INSERT INTO orders VALUES (1)",
    "update orders set x = 1",
    "no such table: orders",
    'relation "orders" does not exist',
    "duplicate key value violates unique constraint",
    "Authorization: Bearer abc123def456",
    "basic dXNlcjpwYXNzd29yZA==",
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIi.x",
    "sk-proj-abcdefghij0123456789",
    "AKIAABCDEFGHIJKLMNOP",
    "OPENAI_API_KEY: abc",
    "password='x'",
    "<html><body>500",
    "x" * (TEXT_MAX + 1),
]


@pytest.mark.parametrize("words", INTERNAL_TEXTS)
def test_what_looks_like_the_inside_of_an_agent_is_taken_for_it(words: str) -> None:  # attack LOG-02
    assert reveals_internals(words, AT)
    sieve = ErrorTextFilter(AT)
    assert sieve.filter_message(said(Part(text="Sorry."), Part(text=words))) is None
    assert "Sorry." in sieve.detail


def test_each_pattern_withholds_a_text_that_no_other_pattern_withholds() -> None:
    found_by = [[pattern for pattern in _INTERNAL_PATTERNS if pattern.search(text)] for text in INTERNAL_TEXTS]
    assert {found[0] for found in found_by if len(found) == 1} == set(_INTERNAL_PATTERNS)


@pytest.mark.parametrize(
    "part",
    [
        Part(data={"why": [{"place": "/srv/agents/echo"}]}),
        Part(data={"stack": ["one", "two"]}),
        Part(data={"session_token": "abc"}),
        Part(data={"/srv/agents/echo": 1}),
        Part(url="http://10.0.0.5/log"),
        Part(raw=base64.b64encode(b"Traceback (most recent call last):").decode(), filename="why.txt"),
        Part(raw="AAAA", filename="/srv/agents/echo/core"),
    ],
)
def test_a_message_shows_all_of_its_parts_or_none(part: Part) -> None:
    assert ErrorTextFilter(AT).filter_message(said(Part(text="Sorry."), part)) is None


@pytest.mark.parametrize(
    "texts", [("Trace", "back (most recent call last)"), ("see src/", "flow.py"), ("no such ", "table"), ("Key", "Error", ": 'x'")]
)
def test_what_is_said_in_pieces_is_looked_at_as_a_whole(texts: tuple[str, ...]) -> None:  # attack LOG-02
    message = said(*(Part(text=text) for text in texts))
    assert not any(reveals_internals(text, AT) for text in texts)
    sieve = ErrorTextFilter(AT)
    assert sieve.filter_message(message) is None
    assert texts[-1].replace('"', "") in sieve.detail


def test_plain_words_in_pieces_are_left_alone() -> None:
    message = said(Part(text="The order "), Part(text="can't be placed."), Part(text="PayPal refuses it"), Part(text=": no money."))
    assert ErrorTextFilter(AT).filter_message(message) is message


def test_a_plain_message_comes_back_as_it_was() -> None:
    message = said(
        Part(text="Sorry."),
        Part(data={"code": "OUT_OF_STOCK", "left": [0, None, 1.5, True], "stack": None}, metadata={"a": 1}),
        Part(data=None),
        Part(raw=base64.b64encode(b"\x89PNG\xff").decode()),
        Part(raw="abc"),
        metadata={"adk_error_code": "RuntimeError"},
    )
    sieve = ErrorTextFilter(AT)
    assert sieve.filter_message(message) is message
    assert sieve.detail == ""


STACKS = {
    "python": 'Trying again:\nTraceback (most recent call last):\n  File "/srv/a.py", line 3, in run\nKeyError: 1',
    "python without its head": 'it says\n  File "a.py", line 3, in run',
    "java": "java.lang.IllegalStateException: x\n\tat com.acme.Shop.place(Shop.java:12)\n\t... 7 more",
    "node": "TypeError: x\n    at Object.<anonymous> (index.js:1:2)",
    "node without names": "boom\r\n    at file:///srv/x.mjs:1:2\r\n",
    "node, told less deep": "TypeError: x\n  at main (index.js:1:2)",
    "go": "panic: x\n\ngoroutine 18 [running]:\nmain.main()",
    "dotnet": "x\n   at Shop.Orders.Place(Order order) in C:\\x.cs:line 12",
    "rust": "hello\nthread 'main' panicked at src/main.rs:3:5",
}


@pytest.mark.parametrize("words", STACKS.values(), ids=STACKS)
def test_a_stack_trace_that_an_agent_tells_of_while_it_works_is_for_the_log(words: str) -> None:  # attack LOG-02
    assert filter_progress_text(Progress(said(Part(text=words)), {"step": 2})) == Progress(None, {"step": 2}, words)
    first, rest = words.split("\n", 1)
    assert filter_progress_text(Progress(said(Part(text=first), Part(data=1), Part(text=rest)))) == Progress(detail=words)
    assert len(filter_progress_text(Progress(said(Part(text=words + "\n" + "x" * DETAIL_MAX)))).detail) == DETAIL_MAX


@pytest.mark.parametrize(
    "words",
    [
        "Traceback (most recent call last): I am looking into it",
        "Step 1\nReading /srv/orders.py, line 3\nKeyError: 'x'",
        "Trains:\n    at 10:30:00\n    at 11:00 (Berlin)\n    at noon",
        'The File "a.py", line 3 of it\nis gone',
        "So it stands:\n  at .hidden(x), and\n  at main(x)",
        "It looks\n  at " + "a.b" * 20_000,
        "It looks at the\ngoroutine 18 [running], and the thread that panicked at noon",
    ],
)
def test_what_is_no_stack_trace_is_told_while_an_agent_works(words: str) -> None:
    progress = Progress(said(Part(text=words)))
    assert filter_progress_text(progress) is progress
    assert filter_progress_text(nothing := Progress()) is nothing


@pytest.mark.parametrize("line", [" " * STACK_MAX, "   at " + "." * STACK_MAX, "\tat " + "a." * STACK_MAX], ids=["blanks", "dots", "names"])
def test_lines_made_for_it_are_looked_at_once_for_a_stack_trace(line: str) -> None:  # attack: each took the loop seconds
    began = time.thread_time()
    progress = Progress(said(Part(text=f"   at \n{line}")))
    assert filter_progress_text(progress) is progress
    assert time.thread_time() - began < 1  # of its own; a hundredth is plenty


def test_metadata_is_shown_member_by_member() -> None:
    sieve = ErrorTextFilter(AT)
    told = {"code": 7, "where": "/srv/agents/echo", "deep": {"traceback": "x"}}
    assert sieve.filter_metadata(told) == {"code": 7}
    assert sieve.detail == '{"where":"/srv/agents/echo","deep":{"traceback":"x"}}'
    assert sieve.filter_metadata(UNSET) is UNSET
    assert ErrorTextFilter(AT).filter_metadata({"where": "/srv/agents/echo"}) is UNSET
    artifact = Artifact("a", (Part(text="/srv/is/its/answer", metadata=told),), metadata=told)
    assert ErrorTextFilter(AT).with_filtered_metadata(artifact) == Artifact(
        "a", (Part(text="/srv/is/its/answer", metadata={"code": 7}),), metadata={"code": 7}
    )
    plain = Artifact("a", (Part(text="so", metadata={"code": 7}),))
    assert ErrorTextFilter(AT).with_filtered_metadata(plain) is plain


def test_text_too_long_to_filter_is_withheld_and_the_logged_text_is_bounded() -> None:
    sieve = ErrorTextFilter(AT)
    assert sieve.filter_message(said(Part(data=["plain"] * (BYTES_MAX // 8)))) is None
    assert sieve.filter_metadata({"code": 7}) is UNSET
    assert len(sieve.detail) == DETAIL_MAX
