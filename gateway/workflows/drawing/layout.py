"""Places the blocks of a workflow on a plane: lists run downwards, branches that run at once stand side by side."""

from collections.abc import Sequence
from typing import Final
from unicodedata import east_asian_width

from msgspec import Struct

from gateway.workflows.drawing.outline import Block

LINE: Final = 18  # units of a line of text
PAD: Final = 14
GAP: Final = 30  # between blocks, where an arrow stands
LANE: Final = 24  # between branches
TRACK: Final = 16  # between lines that lead past blocks
WIDTH_MIN: Final = 140
TEXT_MAX: Final = 48  # characters of a line


class PlacedBlock(Struct, frozen=True):
    """One block as a box. `lines` are its name, what it does, and its ways on; `lanes` are the lists within it."""

    block: Block
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    lanes: tuple["BlockLane", ...] = ()

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height


class BlockLane(Struct, frozen=True):
    """A list of blocks with its label. `tracks` are the places of lines that lead past blocks: from, to, and the distance at the right."""

    label: str
    x: float
    y: float
    width: float
    height: float
    items: tuple[PlacedBlock, ...]
    tracks: tuple[tuple[int, int, float], ...] = ()


def text_width(text: str) -> float:
    """About how wide a text of 13 units is; characters of East Asia are twice as wide."""
    return sum(13.5 if east_asian_width(each) in "WF" else 7.4 for each in text)


def shorten(text: str) -> str:
    """At most 48 characters of a text, in one line."""
    plain = " ".join(text.split())
    return plain if len(plain) <= TEXT_MAX else f"{plain[: TEXT_MAX - 1]}…"


def lay_out(blocks: Sequence[Block], label: str = "") -> BlockLane:
    """A list of blocks at the origin."""
    items = [_box(block) for block in blocks]
    jumps = _jumps(blocks)
    head = LINE + 4 if label else 0
    width = max([item.width for item in items] + [text_width(label) + PAD, 0 if items else 40])
    y, placed = float(head), []
    for item in items:
        placed.append(_moved(item, (width - item.width) / 2, y))
        y += item.height + GAP
    tracks = tuple((start, end, width + TRACK * (number + 1)) for number, (start, end) in enumerate(jumps))
    height = max(y - GAP, head) if items else head + LINE
    return BlockLane(label, 0, 0, width + TRACK * (len(jumps) + 1 if jumps else 0), height, tuple(placed), tracks)


def _jumps(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    """The ways that lead to another block than the next one, as indices; the number of blocks stands for the end of the list."""
    places = {block.name: index for index, block in enumerate(blocks)} | {"exit": len(blocks), "end": len(blocks)}
    found = []
    for index, block in enumerate(blocks):
        directives = [then for _, then in block.cases]
        if not block.cases or all(label != "otherwise" for label, _ in block.cases):
            directives.append(block.then)
        for then in dict.fromkeys(directives):
            target = index + 1 if then == "continue" else places.get(then, index + 1)
            if target != index + 1:
                found.append((index, target))
    return found


def _lines(block: Block) -> tuple[str, ...]:
    ways = [f"{shorten(label)} → {then}" for label, then in block.cases]
    then = [] if block.then in ("continue", "") else [f"→ {block.then}"]
    return tuple(shorten(line) for line in (block.name, block.says, *ways, *then) if line)


def _box(block: Block) -> PlacedBlock:
    lines = _lines(block)
    text = max(text_width(line) for line in lines) + 2 * PAD + LINE
    if not block.parts:
        return PlacedBlock(block, 0, 0, max(text, WIDTH_MIN), len(lines) * LINE + PAD, lines)
    lanes = [lay_out(inner, label) for label, inner in block.parts]
    top = len(lines) * LINE + PAD
    if block.parallel:
        width = sum(lane.width for lane in lanes) + LANE * (len(lanes) - 1)
        height = max(lane.height for lane in lanes)
        x, placed = float(PAD), []
        for lane in lanes:
            placed.append(_moved_lane(lane, x, top))
            x += lane.width + LANE
    else:
        width = max(lane.width for lane in lanes)
        y, placed = float(top), []
        for lane in lanes:
            placed.append(_moved_lane(lane, PAD, y))
            y += lane.height + PAD
        height = y - top - PAD
    return PlacedBlock(block, 0, 0, max(text, width + 2 * PAD), top + height + PAD, lines, tuple(placed))


def _moved(item: PlacedBlock, x: float, y: float) -> PlacedBlock:
    lanes = tuple(_moved_lane(lane, x, y) for lane in item.lanes)
    return PlacedBlock(item.block, item.x + x, item.y + y, item.width, item.height, item.lines, lanes)


def _moved_lane(lane: BlockLane, x: float, y: float) -> BlockLane:
    items = tuple(_moved(item, x, y) for item in lane.items)
    tracks = tuple((start, end, at + x) for start, end, at in lane.tracks)
    return BlockLane(lane.label, lane.x + x, lane.y + y, lane.width, lane.height, items, tracks)


def moved_lane(lane: BlockLane, x: float, y: float) -> BlockLane:
    """The list elsewhere."""
    return _moved_lane(lane, x, y)
