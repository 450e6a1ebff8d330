"""Search mode's ranking, apart from any server."""

import msgspec
from msgspec import Raw

from gateway.mcp_server.searching import ranked
from tests.fakes.patience import cpu_seconds


def tool(name: str, description: str) -> Raw:
    return Raw(msgspec.json.encode({"name": name, "description": description, "inputSchema": {}}))


def test_words_that_begin_alike_count_either_way() -> None:
    orders, order, other = tool("a", "all orders"), tool("b", "one order"), tool("c", "ordinary")
    assert ranked([orders, order, other], "orders") == [orders, order]
    assert ranked([orders, order, other], "ord") == [orders, order, other]
    assert ranked([orders, order, other], "der") == []


def test_no_query_keeps_the_gateway_from_its_work() -> None:  # attack TEN-08
    words = [f"w{first}{second}{third}" for first in "abcdefgh" for second in "abcdefgh" for third in "abcdefgh"]
    tools = [tool(f"t{number}", " ".join(words[number % 300 :][:200])) for number in range(1000)]
    ranked(tools, "once")  # their words are kept
    with cpu_seconds(20):
        assert ranked(tools, " ".join(f"x{word[1:]}" for word in words[:200])) == []
        assert ranked(tools, "w" * 1000) == []
