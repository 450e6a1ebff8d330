"""A workflow as SVG: no scripts, no links and nothing from elsewhere, legible on light and dark grounds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from gateway.workflows.drawing.layout import LINE, PAD, BlockLane, PlacedBlock, lay_out, moved_lane, text_width
from gateway.workflows.drawing.mermaid import CLASSES
from gateway.workflows.drawing.outline import Block, Nature
from gateway.workflows.drawing.step_states import StepState

MARGIN: Final = 20
ENDS: Final = 34  # from the start's middle to the first block
WORDS: Final[Mapping[Nature, str]] = {
    Nature.AI: "◆ reasons",
    Nature.FIXED: "■ fixed",
    Nature.PEOPLE: "● people",
    Nature.WAIT: "○ waits",
    Nature.FLOW: "leads on",
}
DARK: Final[Mapping[Nature, str]] = {
    Nature.AI: "fill:#3a2757;stroke:#b592e6",
    Nature.FIXED: "fill:#16324d;stroke:#74a9dd",
    Nature.PEOPLE: "fill:#4a3410;stroke:#e0a33a",
    Nature.WAIT: "fill:#2b3138;stroke:#98a3ae",
    Nature.FLOW: "fill:#1c2026;stroke:#818b96",
}


STATE_MARKS: Final[Mapping[StepState, str]] = {StepState.DONE: "✓ done", StepState.FAILED: "✕ failed", StepState.WAITS: "… waits"}
_NO_STATES: Final[Mapping[str, StepState]] = {}


def svg_of(title: str, blocks: Sequence[Block], states: Mapping[str, StepState] = _NO_STATES) -> str:
    """The picture of a workflow, with a legend of the natures that occur in it.

    `states`: of the steps of a run, by their pointers; each is written on the edge of its block.
    """
    lane = lay_out(blocks)
    natures = [nature for nature in Nature if nature is not Nature.FLOW and nature in _natures(blocks)]
    legend = sum(text_width(WORDS[nature]) + 44 for nature in natures)
    width = max(lane.width + 2 * MARGIN, legend + 2 * MARGIN, text_width(title) * 1.2 + 2 * MARGIN)
    lane = moved_lane(lane, (width - lane.width) / 2, MARGIN + 2 * LINE + ENDS)
    bottom = lane.y + lane.height + ENDS
    height = bottom + 2 * LINE + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{_text(title)}</title>",
        _style(),
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>',
        f'<rect class="ground" width="{width:.0f}" height="{height:.0f}"/>',
        f'<text class="title" x="{MARGIN}" y="{MARGIN + LINE / 2:.0f}">{_text(title)}</text>',
        *_ends(lane, bottom),
        *_lane(lane),
        *_state_marks(lane, states),
        *_legend(natures, bottom + LINE + 8),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _style() -> str:
    rules = [
        ".ground{fill:#fff} text{fill:#1d2430} .title{font-size:16px;font-weight:600} .name{font-weight:600}",
        ".way{fill:none;stroke:#66707a;stroke-width:1.5} .tip{fill:#66707a} .lane{fill:none;stroke:#aab2bb;stroke-dasharray:3 3}",
        *(f".{nature}{{{style.replace(',', ';').split(';color')[0]};stroke-width:1.5}}" for nature, style in CLASSES.items()),
        ".ai{stroke-width:2.5}.wait{stroke-dasharray:4 3}",
        ".mark{font-size:12px;font-weight:600;fill:#fff} .mark-done{fill:#14663b} .mark-failed{fill:#a51d2d} .mark-waits{fill:#7a4a00}",
    ]
    dark = [
        ".ground{fill:#12161b} text{fill:#e6eaf0}.way{stroke:#98a3ae}.tip{fill:#98a3ae}.lane{stroke:#56606b}",
        *(f".{nature}{{{style}}}" for nature, style in DARK.items()),
    ]
    return f"<style>{' '.join(rules)} @media (prefers-color-scheme: dark){{{' '.join(dark)}}}</style>"


def _natures(blocks: Sequence[Block]) -> set[Nature]:
    found = {block.nature for block in blocks}
    for block in blocks:
        for _, inner in block.parts:
            found |= _natures(inner)
    return found


def _ends(lane: BlockLane, bottom: float) -> Iterator[str]:
    """The start and the end of the run."""
    middle = lane.items[0].middle if lane.items else lane.x + lane.width / 2
    yield f'<circle class="flow" cx="{middle:.1f}" cy="{lane.y - ENDS + 6:.1f}" r="6"/>'
    yield _arrow(middle, lane.y - ENDS + 12, middle, lane.y)
    yield f'<circle class="flow" cx="{middle:.1f}" cy="{bottom:.1f}" r="6"/><circle class="tip" cx="{middle:.1f}" cy="{bottom:.1f}" r="3"/>'
    if lane.items and not _leaves(lane, len(lane.items) - 1):
        yield _arrow(middle, lane.items[-1].bottom, middle, bottom - 7)


def _leaves(lane: BlockLane, index: int) -> bool:
    """Whether a block never leads to the one below it."""
    block = lane.items[index].block
    directives = [then for _, then in block.cases]
    if not block.cases or all(label != "otherwise" for label, _ in block.cases):
        directives.append(block.then)
    following = lane.items[index + 1].block.name if index + 1 < len(lane.items) else ""
    return all(then not in ("continue", following) for then in directives) and not (not following and {"exit", "end"} & set(directives))


def _lane(lane: BlockLane) -> Iterator[str]:
    """The blocks of a list, and the lines between them."""
    if lane.label:
        yield f'<text x="{lane.x:.1f}" y="{lane.y + 12:.1f}">{_text(lane.label)}</text>'
    for index, item in enumerate(lane.items):
        yield from _block(item)
        if index + 1 < len(lane.items) and not _leaves(lane, index):
            yield _arrow(item.middle, item.bottom, lane.items[index + 1].middle, lane.items[index + 1].y)
    for start, end, track in lane.tracks:
        yield _detour(lane, start, end, track)


def _detour(lane: BlockLane, start: int, end: int, track: float) -> str:
    """A line that leads past blocks, to another one or to the end of the list."""
    source = lane.items[start]
    right, y = source.x + source.width, source.y + source.height / 2
    if end < len(lane.items):
        target = lane.items[end]
        to_x, to_y = target.x + target.width, target.y + target.height / 2 + 4
    else:
        to_x, to_y = source.middle + 8, lane.y + lane.height + 8
    path = f"M{right:.1f},{y:.1f} H{track:.1f} V{to_y:.1f} H{to_x:.1f}"
    return f'<path class="way" d="{path}" marker-end="url(#tip)"/>'


def _block(item: PlacedBlock) -> Iterator[str]:
    block, round_ = item.block, {Nature.AI: min(item.height / 2, 22), Nature.WAIT: 10}.get(item.block.nature, 3)
    box = f'x="{item.x:.1f}" y="{item.y:.1f}" width="{item.width:.1f}" height="{item.height:.1f}"'
    yield f"<g><title>{_text(f'{block.path} ({WORDS[block.nature]})')}</title>"
    if block.nature is Nature.PEOPLE:
        left, right, middle = item.x, item.x + item.width, item.y + item.height / 2
        corners = (
            (left + 10, item.y),
            (right - 10, item.y),
            (right, middle),
            (right - 10, item.bottom),
            (left + 10, item.bottom),
            (left, middle),
        )
        yield f'<polygon class="people" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'
    else:
        yield f'<rect class="{block.nature}" {box} rx="{round_}"/>'
    mark = "" if block.nature is Nature.FLOW else WORDS[block.nature][0] + " "
    for number, line in enumerate(item.lines):
        x, y = item.x + PAD, item.y + PAD / 2 + 13 + number * LINE
        kind, text = ("", line) if number else (' class="name"', mark + line)
        yield f'<text{kind} x="{x:.1f}" y="{y:.1f}">{_text(text)}</text>'
    yield "</g>"
    for lane in item.lanes:
        if block.parallel:
            frame = f'x="{lane.x - 6:.1f}" y="{lane.y - 4:.1f}" width="{lane.width + 12:.1f}" height="{lane.height + 8:.1f}"'
            yield f'<rect class="lane" {frame} rx="4"/>'
        yield from _lane(lane)


def _state_marks(lane: BlockLane, states: Mapping[str, StepState]) -> Iterator[str]:
    """A label on the upper right edge of each block whose state is known."""
    for item in lane.items:
        if (state := states.get(item.block.path)) is not None:
            words = STATE_MARKS[state]
            width = text_width(words) + 18
            x, y = item.x + item.width - width - 6, item.y - 9
            yield f'<rect class="mark-{state}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="18" rx="9"/>'
            yield f'<text class="mark" x="{x + 8:.1f}" y="{y + 13:.1f}">{words}</text>'
        for inner in item.lanes:
            yield from _state_marks(inner, states)


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path class="way" d="M{x:.1f},{y:.1f} L{to_x:.1f},{to_y:.1f}" marker-end="url(#tip)"/>'


def _legend(natures: Sequence[Nature], y: float) -> Iterator[str]:
    x = float(MARGIN)
    for nature in natures:
        yield f'<rect class="{nature}" x="{x:.1f}" y="{y - 11:.1f}" width="22" height="14" rx="{7 if nature is Nature.AI else 2}"/>'
        yield f'<text x="{x + 28:.1f}" y="{y:.1f}">{_text(WORDS[nature])}</text>'
        x += text_width(WORDS[nature]) + 44


def _text(text: str) -> str:
    """A text of the document as XML: without the characters that XML 1.0 can't have."""
    return escape("".join(each for each in text if each.isprintable() and each not in "\ufffe\uffff"), {'"': "&quot;"})
