"""Search mode's ranking and its indexes, apart from any server."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import msgspec
import pytest
from msgspec import Raw

from gateway.calls.limits.slices import SLICE
from gateway.ingress.mcp_server.catalogue import search_mode as searching
from gateway.ingress.mcp_server.catalogue.search_mode import SearchIndexes, build_ranking
from gateway.ingress.mcp_server.search.ranking import CANDIDATES_MAX, ExpandedTerms, Ranking, ToolDocuments, ToolText
from gateway.ingress.mcp_server.search.vocabulary import act_of, split_words, stems
from tests.fakes.patience import cpu_seconds
from tests.fakes.slices import StepCounter


def tool(name: str, description: str = "", *arguments: str, title: str = "") -> Raw:
    schema = {"properties": {argument: {} for argument in arguments}}
    return Raw(msgspec.json.encode({"name": name, "title": title, "description": description, "inputSchema": schema}))


def find_in(tools: Sequence[Raw], *queries: str, limit: int = 50) -> list[tuple[list[int], int]]:
    """What each query finds in an index over the tools."""

    async def find_all() -> list[tuple[list[int], int]]:
        ranking = await build_ranking(tools)
        return [await ranking.find_best(query, limit) for query in queries]

    return asyncio.run(find_all())


def found(tools: Sequence[Raw], query: str, limit: int = 50) -> list[str]:
    return [msgspec.json.decode(tools[number])["name"] for number in find_in(tools, query, limit=limit)[0][0]]


def test_names_and_camel_case_are_words() -> None:
    assert list(split_words("shop_getHTTPStatus2 在庫 для")) == ["shop", "get", "http", "status", "2", "在庫", "для"]
    assert stems(["orders", "listing"]) == ["order", "list"] and act_of(stems(["please", "removes"])) == "delete"


def test_words_with_one_stem_are_one_and_the_beginning_of_a_word_finds_it() -> None:
    tools = [tool("a", "all orders"), tool("b", "one order"), tool("c", "ordinary")]
    assert sorted(found(tools, "orders")) == ["a", "b"]
    assert sorted(found(tools, "ord")) == ["a", "b", "c"]
    assert found(tools, "der") == []


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("remove an order", "delete_order"),
        ("show me all orders", "list_orders"),
        ("make a new order", "create_order"),
        ("which orders are there", "list_orders"),
        ("wether", "weather_report"),
        ("THE WEATHER, please", "weather_report"),
        ("在庫", "stock"),
    ],
)
def test_what_is_meant_comes_first(query: str, best: str) -> None:
    tools = [
        tool("create_order", "Creates an order."),
        tool("list_orders", "Lists orders."),
        tool("delete_order", "Deletes an order. Use list_orders to see all orders, each order and every order."),
        tool("weather_report", "Tells the weather."),
        tool("stock", "在庫 を調べる"),
    ]
    assert found(tools, query)[0] == best


def test_a_name_counts_more_than_a_title_a_description_and_an_argument() -> None:
    tools = [tool("d", "x", "invoice"), tool("c", "About an invoice."), tool("b", title="Invoice"), tool("invoice")]
    assert found(tools, "invoice") == ["invoice", "b", "c", "d"]


def test_equals_stand_in_the_order_of_the_list() -> None:
    tools = [tool(name, "The same thing.") for name in "zyxw"]
    assert found(tools, "thing") == ["z", "y", "x", "w"]


def test_all_that_fit_are_counted_and_the_best_are_given() -> None:
    tools = [tool(f"t{number}", "order") for number in range(CANDIDATES_MAX + 100)]
    [(numbers, total)] = find_in(tools, "order", limit=5)
    assert (len(numbers), total) == (5, CANDIDATES_MAX + 100)


@pytest.mark.parametrize("query", ['name:"a" OR *', "a AND NOT b", "[a TO z]", "((((", "+-!^~?:\\/", "\x00", "🙂", '"', "x" * 1000])
def test_no_word_of_a_query_is_more_than_a_word(query: str) -> None:  # attack TEN-08
    tools = [tool("alpha", "one"), tool("beta", "two")]
    assert set(found(tools, query)) <= {"alpha", "beta"}


def test_no_query_keeps_the_gateway_from_its_work() -> None:  # attack TEN-08
    given = [f"w{first}{second}{third}" for first in "abcdefgh" for second in "abcdefgh" for third in "abcdefgh"]
    tools = [tool(f"t{number}", " ".join(given[number % 300 :][:200])) for number in range(1000)]
    with cpu_seconds(20):
        some, none, many = find_in(tools, " ".join(f"x{word[1:]}" for word in given[:200]), "w" * 1000, " ".join(given[:300]))
    assert (some[1] >= 0, none, many[1] > 0) == (True, ([], 0), True)


async def test_an_index_is_made_once_for_all_who_may_call_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    async def build(listed: Sequence[Raw]) -> Ranking:
        made.append(len(listed))
        return await build_ranking(listed)

    monkeypatch.setattr(searching, "build_ranking", build)
    indexes, tools = SearchIndexes(), [tool("a", "order"), tool("b", "order")]
    both = await asyncio.gather(indexes.find_best(tools, "order", 5), indexes.find_best(list(tools), "order", 5))
    assert [total for _, total in both] == [2, 2] and made == [2]
    assert (await indexes.find_best(tools[:1], "order", 5))[1] == 1  # who may call one finds one
    assert (await indexes.find_best([*tools[:1], tool("b", "order")], "order", 5))[1] == 2 and made == [2, 1, 2]


async def test_indexes_are_kept_for_so_many_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "INDEXED_TOOLS_MAX", 5)
    indexes = SearchIndexes()
    for _ in range(4):
        await indexes.find_best([tool("a", "order"), tool("b", "order")], "order", 5)
    assert len(indexes._cached) == 2


async def test_an_index_is_built_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = StepCounter()

    class Counted(ToolDocuments):
        def add(self, tool: ToolText) -> None:
            counter.count()
            super().add(tool)

    monkeypatch.setattr(searching, "ToolDocuments", Counted)
    async with counter.watch():
        await build_ranking([tool(f"t{number}", "order") for number in range(3 * SLICE)])
    assert counter.total == 3 * SLICE
    assert counter.most_in_one_iteration <= SLICE


async def test_an_equal_list_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []
    monkeypatch.setattr(searching, "is_", lambda one, other: (compared.append(one is other), one is other)[1])
    indexes, tools = SearchIndexes(), [tool("a", "order"), tool("b", "order")]
    again = list(tools)
    for listed in (tools, again, again, again):
        await indexes.find_best(listed, "order", 5)
    assert compared == [True, True]


async def test_indexes_are_finished_and_searched_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[str, int]] = []

    class Noted(Ranking):
        def __init__(self, documents: ToolDocuments) -> None:
            threads.append(("build", threading.get_ident()))
            super().__init__(documents)

        def _search(self, terms: ExpandedTerms, limit: int) -> tuple[list[tuple[float, int]], int]:
            threads.append(("search", threading.get_ident()))
            return super()._search(terms, limit)

    monkeypatch.setattr(searching, "Ranking", Noted)
    tools = [tool("a", "order"), tool("b", "order")]
    assert (await SearchIndexes().find_best(tools, "order", 5))[1] == 2
    assert [act for act, _ in threads] == ["build", "search"]
    assert threading.get_ident() not in {thread for _, thread in threads}


async def test_what_a_search_finds_is_scored_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = StepCounter()

    class Counted(Ranking):
        def _name_scorer(self, terms: ExpandedTerms, intent: str) -> Callable[[int], float]:
            score = super()._name_scorer(terms, intent)
            return lambda number: (counter.count(), score(number))[1]

    monkeypatch.setattr(searching, "Ranking", Counted)
    ranking = await build_ranking([tool(f"t{number}", "order") for number in range(CANDIDATES_MAX)])
    async with counter.watch():
        await ranking.find_best("order", 5)
    assert counter.total == CANDIDATES_MAX
    assert counter.most_in_one_iteration <= SLICE
