"""Where things stand in the text of a policy file: Cedar says what is wrong with one, but not where."""

import re
from collections.abc import Callable, Iterator

# A comment, a string, a word, an operator, or one other character; white space is between them.
_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|[A-Za-z_]\w*|\d+|::|&&|\|\||[=!<>]=|\S', re.DOTALL)
INCOMPLETE = "unexpected end of input"
TOKENS_MAX = 4096  # of one policy; what is wrong behind them is said to be in its first line


def statements(text: str) -> Iterator[re.Match[str]]:
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
    starts = [token.start() for token in statements(text)]
    return _line(text, starts[index]) if index < len(starts) else 1


def fault_line(text: str, complaint: Callable[[str], str]) -> int:
    """The line of the first token that no policy could go on with. `complaint` is what Cedar says of a text, empty: nothing."""
    starts = [token.start() for token in statements(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        if complaint(text[start:end]):
            return _line(text, _fault(text, start, end, complaint))
    return 1


def _fault(text: str, start: int, end: int, complaint: Callable[[str], str]) -> int:
    """Where the shortest beginning of a policy ends that is more than incomplete."""
    last = start
    for count, token in enumerate(_TOKEN.finditer(text, start, end)):
        if count >= TOKENS_MAX:
            return start
        if token[0].startswith("//"):
            continue
        last = token.start()
        if complaint(text[start : token.end()]) not in ("", INCOMPLETE):
            return last
    return last


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
