"""A workflow as a tree of text lines, for terminals."""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.workflows.drawing.outline import Block, Nature

MARKS: Final[Mapping[Nature, str]] = {
    Nature.AI: "◆ ai",
    Nature.FIXED: "■ fixed",
    Nature.PEOPLE: "● people",
    Nature.WAIT: "○ wait",
    Nature.FLOW: "·",
}


def tree_of(title: str, blocks: tuple[Block, ...]) -> list[str]:
    return [title, *_lines(blocks, "")]


def _lines(blocks: tuple[Block, ...], indent: str) -> Iterator[str]:
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        leads = "" if block.then == "continue" else f"  → {block.then}"
        yield f"{indent}{'└─' if last else '├─'} {block.name}  {MARKS[block.nature]} {block.says}{leads}"
        below = indent + ("   " if last else "│  ")
        for label, then in block.cases:
            yield f"{below}when {label}  → {then}"
        beside = tuple(each for label, inner in block.parts if block.parallel or not label for each in inner)
        yield from _lines(beside, below)
        for label, inner in block.parts:
            if label and not block.parallel:
                yield f"{below}{label}:"
                yield from _lines(inner, below + "  ")
