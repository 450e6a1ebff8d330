"""Output of commands: data on stdout, for people or as JSON; notes and progress on stderr."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print the data as JSON, and nothing else.")]

MOMENTS = frozenset(("created", "updated", "expires"))  # members of answers that are RFC 3339 times
WORD_MAX: Final = 20  # a column is narrowed until its longest word has no room; longer words are cut
TEXT_MIN: Final = 16  # a column whose cells may be narrowed by so much is a text: it is left out last
CellLength = Callable[[str], int]
MAX_WIDTH = 100_000  # characters of a line of a table that another program reads
# Untrusted text must neither control the terminal nor hide anything from its reader. Replaced are control characters (not tab, line feed),
# marks that reorder text, line breaks that terminals don't show, and the invisible Default_Ignorable_Code_Point characters of Unicode.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def printable(value: object) -> str:
    """Returns the value as text that can't move the cursor, recolour or reorder the screen."""
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", "" if value is None else str(value))


def console(stderr: bool = False, piped_width: int = 160) -> "Console":
    """Returns a rich console on the current stdout or stderr. It is wide when piped, so that little is folded."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=None if _is_narrow(stderr) else piped_width)


def _is_narrow(stderr: bool = False) -> bool:
    """Whether lines are for a screen, and not for another program."""
    return "COLUMNS" in os.environ or (sys.stderr if stderr else sys.stdout).isatty()


def print_json(value: Any) -> None:
    """Prints one JSON document."""
    typer.echo(_encode_json(value, indent=2))


def print_json_line(value: Any, *, is_error: bool = False) -> None:
    """Prints one JSON document of several on a line of its own; an error goes to stderr."""
    typer.echo(_encode_json(value, separators=(",", ":")), err=is_error)


def _encode_json(value: Any, **form: Any) -> str:
    """Returns JSON in which the characters that `printable` replaces are escaped; they occur in strings only."""
    return UNSAFE.sub(lambda found: _escape(found[0]), json.dumps(value, ensure_ascii=False, **form))


def _escape(character: str) -> str:
    """Returns the JSON escape of one character: above U+FFFF two surrogates."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def print_text(text: object, *, newline: bool = True) -> None:
    typer.echo(printable(text), nl=newline)


def print_note(text: object) -> None:
    """Prints a note for the person on stderr."""
    console(stderr=True).print(printable(text), style="dim", soft_wrap=True)


def print_problem(message: object, todo: object = "") -> None:
    """Prints on stderr what went wrong, and what to do."""
    screen = console(stderr=True)
    screen.print(printable(message), style="red", soft_wrap=True)
    if todo:
        screen.print(printable(todo), soft_wrap=True)


def problem_lines(problems: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each problem of a document with its line, where it is known, and its place."""
    lines = ((f"line {each['line']}  " if each.get("line") else "", each) for each in problems)
    return [f"{line}{each.get('path') or '/'}  {each.get('reason')}" for line, each in lines]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing here") -> None:
    """Prints a table that fits the terminal, and names the columns that have no room. Prints the note `empty` when there are no rows.

    Texts wrap at words, and words that are too long end in an ellipsis; the first column is whole. A pipe gets each row in one line.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    texts = [[printable(cell) for cell in row] for row in rows]
    if not texts:
        print_note(empty)
        return
    screen = console(piped_width=MAX_WIDTH)
    widths = fit_columns(columns, texts, screen.width, cell_len)
    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, width in widths.by_index.items():
        grid.add_column(columns[index], width=width, no_wrap=index == 0, overflow="fold" if index == 0 else "ellipsis")
    for row in texts:
        grid.add_row(*(_colour(Text(row[index])) for index in widths.by_index))
    screen.print(grid, crop=False)
    if left_out := widths.left_out(columns):
        print_note(f"no room for: {', '.join(left_out)}; a wider terminal or --json shows more")


def print_list(items: Sequence[Any], as_json: bool, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Prints a list as a table of `rows`, which are made from `items` only then, or as JSON."""
    if as_json:
        print_json({"items": items})
    else:
        print_table(columns, rows, empty)


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints names and values of one thing; empty values are left out, and moments are in local time."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", [], ()):
            shown = format_time(value) if name in MOMENTS and isinstance(value, str) else value
            grid.add_row(name, _colour(Text(printable(shown))))
    console().print(grid)


def format_value(value: object) -> str:
    """Returns one value of a document for a table."""
    if value is None:
        return "—"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def format_change(before: object, after: object) -> str:
    """Returns what a member was and what it becomes, in one line. An empty text is a dash, like a missing value."""
    return f"{format_value(before) or '—'} → {format_value(after) or '—'}"


@contextmanager
def show_progress(text: str) -> Iterator[None]:
    """Shows on a terminal that the command waits."""
    if not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(printable(text)):
        yield


def format_time(text: str) -> str:
    """Returns an RFC 3339 time in local time, in the usual form for people."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at.tzinfo == UTC else text


_WORDS_BY_COLOUR = {
    "green": {"active", "completed", "ok", "yes", "allowed"},
    "yellow": {"pending", "working", "submitted", "input required", "auth required", "down"},
    "red": {"quarantined", "failed", "rejected", "canceled", "problem", "no", "refused", "error"},
}


def _colour(text: Any) -> Any:
    for colour, words in _WORDS_BY_COLOUR.items():
        if text.plain in words:
            text.stylize(colour)
    return text


def format_count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_cost(cost: Mapping[str, Any] | None, unit: str = "steps") -> str:
    """An amount with what is not in it, such as `0.42 USD + 2 unpriced steps`; what is unknown as a whole is `unknown`.

    Calls whose report is not believed are counted behind it: `(1 with a report that is not believed)`.
    """
    if cost is None:
        return ""
    unpriced = cost["unpriced"]
    lacking = f"{unpriced} unpriced {unit if unpriced != 1 else unit.removesuffix('s')}" if unpriced else ""
    quarantined = f" ({cost['quarantined']} with a report that is not believed)" if cost.get("quarantined") else ""
    if cost["amount"] is None:
        return (f"unknown ({lacking})" if unpriced > 1 else "unknown") + quarantined
    return f"{cost['amount']} {cost['currency']}" + (f" + {lacking}" if lacking else "") + quarantined


def parse_state(text: str) -> str:
    """Returns `input-required` as `TASK_STATE_INPUT_REQUIRED`, and an empty text as it is."""
    return f"TASK_STATE_{text.upper().replace('-', '_').replace(' ', '_')}" if text else ""


def format_state(name: str) -> str:
    """Returns `TASK_STATE_INPUT_REQUIRED` as `input required`."""
    return name.removeprefix("TASK_STATE_").replace("_", " ").lower()


@dataclass(frozen=True, slots=True)
class ColumnWidths:
    """The width of each column that is shown, by its index."""

    by_index: dict[int, int]

    def left_out(self, names: Sequence[str]) -> list[str]:
        return [name for index, name in enumerate(names) if index not in self.by_index]


@dataclass(frozen=True, slots=True)
class _Column:
    index: int
    natural: int
    least: int

    @property
    def is_text(self) -> bool:
        return self.natural - self.least >= TEXT_MIN


def fit_columns(names: Sequence[str], rows: Sequence[Sequence[str]], width: int, cell_length: CellLength) -> ColumnWidths:
    """Returns the widths with which the table, three characters between two columns, is at most `width` wide.

    The first column keeps its whole width. Columns without any value are left out first, then those at the right, texts last.
    """
    columns = [_measure(index, [name, *(row[index] for row in rows)], cell_length) for index, name in enumerate(names)]
    if _total([column.natural for column in columns]) <= width:
        return ColumnWidths({column.index: column.natural for column in columns})
    columns = [column for column in columns if column.index == 0 or any(row[column.index].strip() for row in rows)]
    while len(columns) > 1 and _total([column.least for column in columns]) > width:
        columns.remove(_least_needed(columns))
    return ColumnWidths(_narrow(columns, width))


def _measure(index: int, cells: Sequence[str], cell_length: CellLength) -> _Column:
    natural = max(cell_length(line) for cell in cells for line in cell.split("\n"))
    longest_word = max((cell_length(word) for cell in cells for word in cell.split()), default=0)
    return _Column(index, natural, natural if index == 0 else min(longest_word, WORD_MAX, natural))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 3 * len(widths) - 1


def _least_needed(columns: Sequence[_Column]) -> _Column:
    rest = columns[1:]
    return next((column for column in reversed(rest) if not column.is_text), rest[-1])


def _narrow(columns: Sequence[_Column], width: int) -> dict[int, int]:
    """Takes what is too much from the widest columns first, as far as each can be narrowed."""
    widths = {column.index: column.natural for column in columns}
    too_much = _total(list(widths.values())) - width
    while too_much > 0:
        wide = [column for column in columns if widths[column.index] > column.least]
        if not wide:
            break
        widths[max(wide, key=lambda column: widths[column.index]).index] -= 1
        too_much -= 1
    return widths
