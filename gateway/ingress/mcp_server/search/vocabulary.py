"""The vocabulary of tool search: stop words, synonyms in names of operations, and the act of each verb."""

import re
from collections.abc import Iterable, Iterator, Mapping

from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

WORD_MAX = 64  # characters of one word that are used
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z](?:[A-Z](?![a-z]))*|[0-9]+|[^\W\d_A-Za-z]+")  # camelCase and snake_case are several words
_STEMMER = TextAnalyzerBuilder(Tokenizer.whitespace()).filter(Filter.stemmer("english")).build()
_STOP_WORD_TEXT = (
    "a about am an and any are as at be been but by can could did do does each every for from had has have he her his how i "
    "if in into is it its just kindly like may me might more most much must my need needs no not now of on or our please she "
    "should so some somebody someone something than that the their them then there these they this those to us want wants was "
    "we were what when where which who whom whose why will with would you your"
)
STOP_WORDS = frozenset(_STOP_WORD_TEXT.split())
_SYNONYMS = (  # words used interchangeably in queries and names of operations
    "create make new add build set open generate provision",
    "delete remove erase destroy drop discard purge clear",
    "list show find enumerate see",
    "get read fetch retrieve describe view see download look",
    "update change modify edit set adjust alter",
    "put upload save store write insert",
    "start run launch execute invoke trigger begin dispatch",
    "stop cancel abort end terminate halt",
    "send publish post deliver notify",
    "search find query filter look",
    "attach add grant assign",
    "detach revoke remove unassign",
    "enable activate",
    "disable deactivate",
    "newest latest recent",
    "person user member account people",
    "customer user client",
    "repository repo",
    "organization org",
    "file object content document",
    "picture photo image",
    "error fail failure",
    "rerun retry again",
    "copy duplicate clone",
    "restore recover",
    "database db",
    "message notification",
)
_VERBS_OF_ACT = {  # the act of each verb; question words mean reading
    "read": "get list describe show read fetch view see find search query look display count check tell retrieve download examine lookup "
    "inspect compare test filter scan browse which who what whose why when where how enumerate",
    "create": "create make new add insert register open generate build provision put upload save store write attach post publish send "
    "submit grant request import copy duplicate clone fork restore",
    "update": "update change modify edit set alter adjust rename move replace rotate enable disable lock unlock reset configure",
    "delete": "delete remove erase destroy drop discard purge clear throw detach revoke unsubscribe deregister block",
    "run": "run start execute invoke launch trigger begin dispatch stop cancel abort end terminate reboot restart resume pause schedule",
}
_WRITING_ACTS = frozenset({"create", "update", "run"})
_PARTIAL_AGREEMENT = 0.7


def split_words(text: str) -> Iterator[str]:
    """Yields the words in lower case."""
    return (found[0][:WORD_MAX].lower() for found in _WORD.finditer(text))


def stems(texts: Iterable[str]) -> list[str]:
    """Returns the stem of each word (Snowball, English)."""
    return list(_STEMMER.analyze(" ".join(texts)))


def synonyms_of(stem: str) -> Iterable[str]:
    return _SYNONYMS_OF_STEM.get(stem, ())


def act_of(stem_list: Iterable[str]) -> str:
    """Returns the act of the first verb among these stems: read, create, update, delete or run; "" without a verb."""
    return next((_ACT_OF_STEM[stem] for stem in stem_list if stem in _ACT_OF_STEM), "")


def agreement_of(act: str, intent: str) -> float:
    """Returns from 0 to 1 how well a tool's act fits the intent. Without an intent every act fits partly, except delete."""
    if act == intent:
        return 1.0 if intent else _PARTIAL_AGREEMENT
    if not intent:
        return 0.0 if act == "delete" else _PARTIAL_AGREEMENT
    return _PARTIAL_AGREEMENT if not act or {act, intent} <= _WRITING_ACTS else 0.0


def _build_synonyms() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for line in _SYNONYMS:
        group = frozenset(stems(line.split()))
        for stem in group:
            found[stem] = found.get(stem, frozenset()) | group - {stem}
    return found


_SYNONYMS_OF_STEM = _build_synonyms()
_ACT_OF_STEM = {stem: act for act, line in _VERBS_OF_ACT.items() for stem in stems(line.split())}
