"""The ranking of search mode, and two plain ones that it has to be better than."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw
from tantivy import Document, Index, SchemaBuilder

from gateway.ingress.mcp_server.catalogue.search_mode import build_ranking
from gateway.ingress.mcp_server.search.vocabulary import STOP_WORDS, split_words
from tests.search.questions import QUESTIONS

FIRST: Final = 5
Find = Callable[[str], Sequence[str]]
Tools = Sequence[Mapping[str, Any]]


class Score(NamedTuple):
    """Of so many questions, how many have a right tool first, and how many have one among the first five."""

    questions: int
    first: int
    among_five: int


def ours(tools: Tools) -> Find:
    ranking = asyncio.run(build_ranking([Raw(msgspec.json.encode(tool)) for tool in tools]))
    return lambda question: [tools[number]["name"] for number in asyncio.run(ranking.find_best(question, FIRST))[0]]


def plain_bm25(tools: Tools) -> Find:
    """tantivy with English stems: all words of a tool count the same."""
    builder = SchemaBuilder()
    builder.add_unsigned_field("number", fast=True)
    builder.add_text_field("text", tokenizer_name="en_stem")
    index = Index(builder.build())
    writer = index.writer(15_000_000, 1)
    for number, tool in enumerate(tools):
        document = Document()
        document.add_unsigned("number", number)
        document.add_text("text", _text(tool))
        writer.add_document(document)
    writer.commit()
    index.reload()
    searcher = index.searcher()

    def find(question: str) -> Sequence[str]:
        hits = searcher.search(index.parse_query(" ".join(split_words(question)), ["text"]), FIRST).hits
        return [tools[int(number or 0)]["name"] for number in searcher.fast_field_values("number", [address for _, address in hits])]

    return find


def fts5(tools: Tools) -> Find:
    """SQLite's FTS5 with Porter's stems, names ten times as heavy as descriptions, without stop words."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE tools USING fts5(name, text, tokenize='porter unicode61')")
    database.executemany("INSERT INTO tools VALUES (?, ?)", [(" ".join(split_words(tool["name"])), _text(tool)) for tool in tools])

    def find(question: str) -> Sequence[str]:
        query = " OR ".join(f'"{word}"' for word in split_words(question) if word not in STOP_WORDS)
        rows = database.execute("SELECT rowid FROM tools WHERE tools MATCH ? ORDER BY bm25(tools, 10, 1), rowid LIMIT ?", (query, FIRST))
        return [tools[row[0] - 1]["name"] for row in rows]

    return find


RANKINGS: Final[Mapping[str, Callable[[Tools], Find]]] = {
    "search mode": ours,
    "plain BM25 (tantivy)": plain_bm25,
    "FTS5, names first": fts5,
}


def score(find: Find) -> Score:
    found = {question: list(find(question)) for question in QUESTIONS}
    first = sum(bool(found[question]) and found[question][0] in right for question, right in QUESTIONS.items())
    five = sum(not set(right).isdisjoint(found[question]) for question, right in QUESTIONS.items())
    return Score(len(QUESTIONS), first, five)


def _text(tool: Mapping[str, Any]) -> str:
    return " ".join(split_words(" ".join((tool["name"], tool["description"], *tool["inputSchema"]["properties"]))))
