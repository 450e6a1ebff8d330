"""What a server says of an error reaches clients, so that a model can correct itself, and nothing of the server's inside does."""

from typing import Any

import pytest

from adapters.mcp_client.redaction import DATA_MAX, add_server_words, redact_text, showable_data
from adapters.mcp_client.wire.messages import McpRefused

ADDRESS = "https://mcp.inner.example/mcp"


@pytest.mark.parametrize(
    "words",
    [
        "Input validation error: Invalid arguments for tool echo: message is required",
        "Unknown tool: get_wether. Did you mean get_weather?",
        'Invalid params: [{"expected": "string", "received": "undefined", "path": ["message"], "message": "Required"}]',
        "Der Ort fehlt.",
        "",
    ],
)
def test_plain_words_are_told(words: str) -> None:
    assert redact_text(words, ADDRESS) == words


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("sku is missing. See /srv/app/tools.py for details.", "sku is missing. [withheld]"),
        ("sku is missing\ncould not reach 10.0.0.7:5432", "sku is missing\n[withheld]"),
        ("connect ECONNREFUSED 10.0.0.7:5432", ""),
        ("Ask mcp.inner.example. The count must be positive.", "[withheld] The count must be positive."),
        ("bad\x1b[31m count", "bad [31m count"),
        ('Traceback (most recent call last):\n  File "/srv/app.py", line 3, in run\nbad count', ""),
        ("x" * 10_000, "x" * 4000),
    ],
)
def test_what_tells_of_the_inside_is_withheld(words: str, shown: str) -> None:
    assert redact_text(words, ADDRESS) == shown


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"path": ["sku"], "expected": "string"}, {"path": ["sku"], "expected": "string"}),
        (["sku"], ["sku"]),
        ({"decision_id": "d", "reason_id": "denied", "dev.interlock/trace_id": "x", "why": "no"}, {"why": "no"}),
        ({"decision_id": "d"}, None),
        ({"trace": 'File "/srv/app.py", line 3'}, None),
        ({"why": "x" * DATA_MAX}, None),
        (None, None),
    ],
)
def test_data_is_told_whole_or_not_at_all(data: Any, shown: Any) -> None:
    assert showable_data(data, ADDRESS) == shown


def test_no_error_of_a_server_passes_for_one_of_the_gateway() -> None:
    assert [McpRefused(code).code for code in (-32010, -32015, -32017, -32020, -32600, -32700)] == [-32603] * 6
    assert [McpRefused(code).code for code in (-32000, -32001, -32602, -32021, 42)] == [-32000, -32001, -32602, -32021, 42]


def test_a_server_that_says_nothing_plain_is_spoken_for() -> None:
    refused = McpRefused(-32602, "the log has it", server_message="see /srv/app.py", server_data={"file": "/srv/app.py"})
    add_server_words(refused, ADDRESS)
    assert "refused the arguments" in refused.public and refused.data is None
    plain = McpRefused(-32602, server_message="count must be positive", server_data={"path": ["count"]})
    add_server_words(plain, ADDRESS)
    assert (plain.public, plain.data) == ("count must be positive", {"path": ["count"]})
