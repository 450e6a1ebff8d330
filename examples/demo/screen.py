"""What the demo shows: numbered steps, checks, chains and the answers of commands. NO_COLOR is honoured."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

WIDEST = 110


class StepFailed(Exception):
    """A step did not go as it should; the text says what was seen instead."""


class Screen:
    """One terminal, wide or narrow, with or without colours."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.console.width = min(self.console.width, WIDEST)
        self._numbers = count(1)
        utf8 = self.console.encoding.startswith("utf")
        self.arrow, self._yes, self._no = (" → ", "✓", "✗") if utf8 else (" > ", "ok", "no")

    def title(self, text: str, below: str) -> None:
        self.console.print(Panel(Text.assemble((text, "bold"), "\n", (below, "dim")), border_style="cyan", expand=False))

    def step(self, text: str) -> None:
        self.console.print()
        self.console.print(Text.assemble((f" {next(self._numbers)} ", "bold reverse cyan"), " ", (text, "bold")))

    def say(self, text: str, style: str = "") -> None:
        self._indented(Text(text, style))

    def check(self, passed: bool, claim: str, seen: object = "") -> None:
        """Shows the claim as held, or raises StepFailed with what was `seen`."""
        if not passed:
            raise StepFailed(f"{claim}\nbut this was seen: {seen}")
        self._indented(self._marked(True, claim))

    def failure(self, text: str) -> None:
        self._indented(self._marked(False, text))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Shows on a terminal that something takes its time, then how long it took."""
        began = monotonic()
        with self.console.status(text):
            yield
        self._indented(Text.assemble(self._marked(True, text), (f"  {monotonic() - began:.1f} s", "dim")))

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        self._indented(grid)

    def chain(self, allowed: bool, links: list[str], limits: Iterable[tuple[str, str]], why: str) -> None:
        """One hop: who asked, through whom, for what; the limits of the agents in between; the ruling."""
        self._indented(self._marked(allowed, self.arrow.join(links)))
        for name, limit in limits:
            self._indented(Text.assemble((f"{name}: ", "dim"), (limit, "dim italic")), 7)
        if why:
            self._indented(Text(why, "red"), 7)

    def command(self, line: str, output: str) -> None:
        """A command as it would be typed, and what it printed."""
        self._indented(Text.assemble(("$ ", "dim"), (line, "cyan")))
        self._indented(Text.from_ansi(output.rstrip()), 5)

    def commands(self, lines: Iterable[str]) -> None:
        """Lines to copy: never wrapped, nothing around them."""
        for line in lines:
            self.console.print(Text(f"   {line}", "cyan"), soft_wrap=True)

    def _marked(self, good: bool, text: str) -> Text:
        return Text.assemble((self._yes, "bold green") if good else (self._no, "bold red"), " ", text)

    def _indented(self, what: Text | Table, left: int = 3) -> None:
        self.console.print(Padding(what, (0, 0, 0, left)))
