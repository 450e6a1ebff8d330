"""How wide the columns of a table are on a narrow screen: texts wrap at words, and columns that have no room are left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WORD_MAX: Final = 20  # a column is narrowed until its longest word has no room; longer words are cut
TEXT_MIN: Final = 16  # a column whose cells may be narrowed by so much is a text: it is left out last
CellLength = Callable[[str], int]


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
