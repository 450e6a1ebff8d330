"""Ranks tools for a query: BM25 over names, titles, descriptions and arguments, plus how much of the name matches.

The order is equal on every database, since this process computes it. An index has only tools that its caller may call, so other tools
affect neither the results nor the word frequencies.
"""

import asyncio
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from tantivy import Document, Index, Occur, Query, SchemaBuilder, Searcher

from gateway.calls.limits.slices import Slices
from gateway.ingress.mcp_server.search.vocabulary import STOP_WORDS, act_of, agreement_of, split_words, stems, synonyms_of

FIELD_WEIGHTS: Mapping[str, float] = {
    "name": 4.0,
    "title": 3.0,
    "first": 2.0,
    "rest": 0.8,
    "arguments": 0.4,
}  # weight of a word in each field
TIE_BREAKER = 0.3  # share of a word's score in fields other than its best one
SYNONYM_WEIGHT, PREFIX_WEIGHT, FUZZY_WEIGHT = 0.8, 0.5, 0.4  # weights of words that match inexactly
MATCH_WEIGHT, COVERAGE_WEIGHT, ACT_WEIGHT = (
    0.3,
    1.0,
    0.5,
)  # added to BM25: query words in the name, coverage of the name, and agreement of the act
TERMS_MAX = 32  # words of a query that are used
TEXT_MAX = 8000  # characters of one description that are indexed
CANDIDATES_MAX = 300  # tools with the best BM25 that are scored further
PREFIX_LETTERS_MIN, PREFIX_STEMS_MAX = 3, 16  # least letters of a prefix, and how many words with it are used
FUZZY_LETTERS_MIN = 5  # least letters of a word that is matched fuzzily
HEAP_BYTES = 15_000_000  # the least memory that the index writer accepts
_SENTENCE = re.compile(r"(?<=[.!?])\s|\n")
ExpandedTerms = Mapping[str, Mapping[str, float]]  # each word of a query with the weights of its matches


class ToolText(NamedTuple):
    """The searchable text of a tool. The first sentence of a description has more weight than the rest."""

    name: str
    title: str = ""
    description: str = ""
    arguments: Sequence[str] = ()


class ToolDocuments:
    """The documents of an index of tools, which are identified by their positions. Adding one takes about 40 µs."""

    def __init__(self) -> None:
        builder = SchemaBuilder()
        builder.add_unsigned_field("number", fast=True)
        for field in FIELD_WEIGHTS:
            builder.add_text_field(field, tokenizer_name="whitespace")
        self.schema = builder.build()
        self.names: list[list[str]] = []
        self.acts: list[str] = []
        self.tool_counts: Counter[str] = Counter()  # in how many tools a stem occurs
        self.name_counts: Counter[str] = Counter()  # in how many names a stem occurs
        self._index = Index(self.schema)
        self._writer = self._index.writer(HEAP_BYTES, 1)

    def add(self, tool: ToolText) -> None:
        """Adds the next tool."""
        text = tool.description[:TEXT_MAX]
        first = _SENTENCE.split(text, maxsplit=1)[0]
        texts = (tool.name, tool.title, first, text[len(first) :], " ".join(tool.arguments))
        fields = {field: stems(split_words(field_text)) for field, field_text in zip(FIELD_WEIGHTS, texts, strict=True)}
        document = Document()
        document.add_unsigned("number", len(self.names))
        for field, each in fields.items():
            document.add_text(field, " ".join(each))
        self._writer.add_document(document)
        self.names.append(fields["name"])
        self.acts.append(act_of(fields["name"]) or act_of(fields["first"][:2]))
        self.name_counts.update(set(fields["name"]))
        self.tool_counts.update({stem for each in fields.values() for stem in each})

    def commit(self) -> Searcher:
        """Returns the searcher of the tools that were added. It takes about 3 µs for each, so call it in a thread."""
        self._writer.commit()
        self._index.reload()
        return self._index.searcher()


class Ranking:
    """An index over tools, which are identified by their positions."""

    def __init__(self, documents: ToolDocuments) -> None:
        """Commits the documents, so construct it in a thread."""
        self._schema = documents.schema
        self._names, self._acts = documents.names, documents.acts
        self._tool_counts, self._name_counts = documents.tool_counts, documents.name_counts
        self._searcher = documents.commit()
        self._vocabulary = sorted(self._tool_counts)

    async def find_best(self, query: str, limit: int) -> tuple[list[int], int]:
        """Returns the positions of matching tools, best first, and how many tools match any of the words.

        A thread searches, and the candidates are scored in slices.
        """
        words = list(split_words(query))
        query_words = [word for word in words if word not in STOP_WORDS] or words
        expanded_terms = {term: self._expand_term(term) for term in list(dict.fromkeys(stems(query_words)))[:TERMS_MAX]}
        hits, count = await asyncio.to_thread(self._search, expanded_terms, max(CANDIDATES_MAX, limit))
        if not hits:
            return [], 0
        score_name, top = self._name_scorer(expanded_terms, act_of(stems(words))), hits[0][0]
        scored = [pair async for pair in Slices((-bm25 / top - score_name(number), number) for bm25, number in hits)]
        return [number for _, number in sorted(scored)[:limit]], count

    def _search(self, terms: ExpandedTerms, limit: int) -> tuple[list[tuple[float, int]], int]:
        """Returns (BM25, position) of the best tools, the best first, and how many tools match any of the words."""
        found = self._searcher.search(self._build_query(terms), limit)
        numbers = self._searcher.fast_field_values("number", [address for _, address in found.hits])
        hits = [(float(bm25), int(number or 0)) for (bm25, _), number in zip(found.hits, numbers, strict=True)]
        return hits, int(found.count)  # type: ignore[attr-defined]  # missing in the stubs

    def _expand_term(self, term: str) -> Mapping[str, float]:
        """Returns the weights of what matches a word: its synonyms, words with this prefix, and the word itself."""
        found = dict.fromkeys(synonyms_of(term), SYNONYM_WEIGHT)
        if len(term) >= PREFIX_LETTERS_MIN:
            start = bisect_left(self._vocabulary, term)
            for other in islice(self._vocabulary, start, start + PREFIX_STEMS_MAX):
                if other.startswith(term):
                    found.setdefault(other, PREFIX_WEIGHT)
        return {**found, term: 1.0}

    def _build_query(self, terms: ExpandedTerms) -> Query:
        """Returns a query for any of the words, each scored in its best field. A word that no tool has matches with one letter changed."""
        clauses = []
        for term, others in terms.items():
            known = [(other, weight) for other, weight in others.items() if self._tool_counts[other]]
            ways = [(self._exact_query(field, other), boost * weight) for other, weight in known for field, boost in FIELD_WEIGHTS.items()]
            if not ways and len(term) >= FUZZY_LETTERS_MIN:
                ways = [(self._fuzzy_query(field, term), boost * FUZZY_WEIGHT) for field, boost in FIELD_WEIGHTS.items()]
            if ways:
                best = Query.disjunction_max_query([Query.boost_query(query, boost) for query, boost in ways], TIE_BREAKER)
                clauses.append((Occur.Should, best))
        return Query.boolean_query(clauses)

    def _exact_query(self, field: str, stem: str) -> Query:
        return Query.term_query(self._schema, field, stem)

    def _fuzzy_query(self, field: str, stem: str) -> Query:
        return Query.fuzzy_term_query(self._schema, field, stem, 1)

    def _name_scorer(self, terms: ExpandedTerms, intent: str) -> Callable[[int], float]:
        """Returns a function of a tool's position: how well its name and act match, to be added to its BM25 score."""
        frequencies = {term: self._inverse_frequency(self._tool_counts, term) for term in terms}
        total_frequency = sum(frequencies.values()) or 1.0

        def score(number: int) -> float:
            name = self._names[number]
            met = sum(frequencies[term] * max((ways.get(stem, 0.0) for stem in name), default=0.0) for term, ways in terms.items())
            weights = [self._inverse_frequency(self._name_counts, stem) for stem in name]
            covered = sum(weight * max(ways.get(stem, 0.0) for ways in terms.values()) for weight, stem in zip(weights, name, strict=True))
            agreement = agreement_of(self._acts[number], intent)
            return MATCH_WEIGHT * met / total_frequency + COVERAGE_WEIGHT * covered / (sum(weights) or 1.0) + ACT_WEIGHT * agreement

        return score

    def _inverse_frequency(self, counter: Counter[str], stem: str) -> float:
        """Returns the inverse document frequency of BM25."""
        count = counter[stem]
        return math.log(1 + (len(self._names) - count + 0.5) / (count + 0.5))
