"""Where things stand in the text of a policy file: Cedar says what is wrong with one, but not where."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

# A comment, a string (which ends with the text where nothing closes it), a word, an operator, or one other character. Between: white space.
_TOKEN = re.compile(r'//[^\n\r]*|"(?:\\.|[^"\\])*+"?|[A-Za-z_]\w*|\d+|::|&&|\|\||[=!<>]=|\S', re.DOTALL)
INCOMPLETE = "unexpected end of input"
OPERATORS_MAX = 250  # of one policy, and
BRACKETS_MAX = 50  # within each other: Cedar's reader has no limit of its own, and ends the process where its stack does
_OPERATORS = frozenset(["||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "!", ".", "has", "like", "is", "in", "if", "["])
TOKENS_MAX = 4096  # of one policy; what is wrong behind them is said to be in its first line


def first_tokens(text: str) -> Iterator[re.Match[str]]:
    """The first token of each policy."""
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
    """The line, from 1, in which the policy of this place among all policies begins."""
    starts = [token.start() for token in first_tokens(text)]
    return _line_at(text, starts[index]) if index < len(starts) else 1


def overgrown_line(text: str) -> int:
    """The line in which the first policy begins that Cedar had better not be given, for its size; 0: there is none."""
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
    """The line of the first token that no policy could go on with. `complaint` is what Cedar says of a text, empty: nothing."""
    for start, end in _policy_spans(text):
        if parse_error(text[start:end]):
            return _line_at(text, _fault_position(text, start, end, parse_error))
    return 1


def _fault_position(text: str, start: int, end: int, parse_error: Callable[[str], str]) -> int:
    """Where the shortest beginning of a policy ends that is more than incomplete."""
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
    """From where to where each policy goes."""
    return pairwise([*(token.start() for token in first_tokens(text)), len(text)])


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
