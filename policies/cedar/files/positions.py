"""Positions in the text of a policy file. Cedar reports what is wrong with a policy, but not where."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

# A comment, a string (an unclosed one ends with the text), a word, an operator, or one other character. White space separates them.
_TOKEN = re.compile(r'//[^\n\r]*|"(?:\\.|[^"\\])*+"?|[A-Za-z_]\w*|\d+|::|&&|\|\||[=!<>]=|\S', re.DOTALL)
INCOMPLETE = "unexpected end of input"
OPERATORS_MAX = 250  # in one policy; Cedar's parser has no limits of its own, and
BRACKETS_MAX = 50  # brackets within each other, beyond which it overflows the stack and ends the process
_OPERATORS = frozenset(["||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "!", ".", "has", "like", "is", "in", "if", "["])
TOKENS_MAX = 4096  # of one policy; a fault behind them is reported in its first line


def first_tokens(text: str) -> Iterator[re.Match[str]]:
    """Yields the first token of each policy."""
    first: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        if token[0].startswith("//"):
            continue
        first = first or token
        if token[0] == ";":
            yield first
            first = None
    if first is not None:
        yield first


def line_of(text: str, index: int) -> int:
    """The line, counted from 1, in which the policy at `index` begins."""
    starts = [token.start() for token in first_tokens(text)]
    return _line_at(text, starts[index]) if index < len(starts) else 1


def overgrown_line(text: str) -> int:
    """The line of the first policy that is too large to be given to Cedar's parser; 0 where there is none."""
    return next((_line_at(text, start) for start, end in _policy_spans(text) if _is_overgrown(_TOKEN.finditer(text, start, end))), 0)


def _is_overgrown(tokens: Iterable[re.Match[str]]) -> bool:
    operators = depth = deepest = 0
    for token in tokens:
        operators += token[0] in _OPERATORS
        if token[0] in ("(", "[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in (")", "]", "}"):
            depth = max(0, depth - 1)
    return deepest > BRACKETS_MAX or operators > OPERATORS_MAX


def fault_line(text: str, parse_error: Callable[[str], str]) -> int:
    """The line of the first token that makes a policy invalid. `parse_error` returns Cedar's error for a text, or the empty string."""
    for start, end in _policy_spans(text):
        if parse_error(text[start:end]):
            return _line_at(text, _fault_position(text, start, end, parse_error))
    return 1


def _fault_position(text: str, start: int, end: int, parse_error: Callable[[str], str]) -> int:
    """The position at which the shortest prefix of a policy ends that is invalid rather than incomplete."""
    last = start
    for count, token in enumerate(_TOKEN.finditer(text, start, end)):
        if count >= TOKENS_MAX:
            return start
        if token[0].startswith("//"):
            continue
        last = token.start()
        if parse_error(text[start : token.end()]) != INCOMPLETE:
            return last
    return last


def _policy_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yields the start and end of each policy."""
    return pairwise([*(token.start() for token in first_tokens(text)), len(text)])


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
