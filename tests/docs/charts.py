"""The picture of a small mermaid flowchart as SVG: boxes in rows by their distance from the start, and labelled arrows."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

NODE = re.compile(r"(\w+)(?:\(\[(.*?)\]\)|\[\((.*?)\)\]|\[\[(.*?)\]\]|\[(.*?)\])?")
EDGE = re.compile(r"^(?P<from>.+?) -->(?:\|(?P<label>[^|]*)\|)? (?P<to>.+)$")
CHARACTER, LINE, GAP_X, GAP_Y, PAD = 7.2, 18, 28, 64, 12  # pixels
STYLE: Final = (
    "<style>rect{fill:#e7f0fb;stroke:#2f6299}text{fill:#12304f;text-anchor:middle}path{fill:none;stroke:#667}.label{font-size:11px;fill:#556;stroke:#fff;stroke-width:4px;paint-order:stroke}"
    ".ground{fill:#fff;stroke:none}</style>"
)


@dataclass(frozen=True, slots=True)
class Chart:
    """The texts of the boxes by their names, and the arrows with their labels, in the order of the document."""

    texts: Mapping[str, tuple[str, ...]]
    arrows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Box:
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float


def parse_chart(source: str) -> Chart:
    """Raises ValueError for a line that it does not know."""
    head, *lines = [line.strip() for line in source.strip().splitlines()]
    if head != "flowchart LR":
        raise ValueError(f"only flowchart LR is drawn, not {head}")
    texts: dict[str, tuple[str, ...]] = {}
    arrows = []
    for line in lines:
        if line == "end" or line.startswith("subgraph "):
            continue
        edge = EDGE.match(line)
        if edge is None:
            raise ValueError(f"this line is not understood: {line}")
        start, finish = (_read_node(edge[side], texts) for side in ("from", "to"))
        arrows.append((start, finish, edge["label"] or ""))
    return Chart(texts, arrows)


def _read_node(text: str, texts: dict[str, tuple[str, ...]]) -> str:
    found = NODE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"this box is not understood: {text}")
    name, *given = found.groups()
    label = next((each for each in given if each), "")
    if label or name not in texts:
        texts[name] = tuple((label or name).split("<br>"))
    return str(name)


def draw_chart(title: str, chart: Chart) -> str:
    """The chart as SVG, without scripts and links."""
    boxes = _place(chart)
    width = max(box.x + box.width for box in boxes.values()) + PAD
    height = max(box.y + box.height for box in boxes.values()) + PAD
    ends = Counter(end for _start, end, _label in chart.arrows)
    arrows = (_arrow(boxes[start], boxes[end], label, is_shared=ends[end] > 1) for start, end, label in chart.arrows)
    parts = (*arrows, *map(_draw_box, boxes.values()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="13"><title>{escape(title)}</title>{STYLE}'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8"/></marker></defs>'
        f'<rect class="ground" width="{width:.0f}" height="{height:.0f}"/>{"".join(parts)}</svg>\n'
    )


def _rows(chart: Chart) -> list[list[str]]:
    """The boxes by the longest way to them, in arrows."""
    rows = dict.fromkeys(chart.texts, 0)
    for _ in chart.texts:
        for start, end, _label in chart.arrows:
            rows[end] = max(rows[end], rows[start] + 1)
    return [[name for name in chart.texts if rows[name] == row] for row in range(max(rows.values()) + 1)]


def _place(chart: Chart) -> dict[str, Box]:
    """Rows below each other, each in the middle of the widest one."""
    rows = _rows(chart)
    labels = {end: label for _start, end, label in chart.arrows}
    widths = {name: max(len(line) for line in (*lines, labels.get(name, ""))) * CHARACTER + 2 * PAD for name, lines in chart.texts.items()}
    totals = [sum(widths[name] for name in row) + GAP_X * (len(row) - 1) for row in rows]
    boxes: dict[str, Box] = {}
    y = float(PAD)
    for row, total in zip(rows, totals, strict=True):
        height = max(len(chart.texts[name]) for name in row) * LINE + 2 * PAD
        x = PAD + (max(totals) - total) / 2
        for name in row:
            boxes[name] = Box(chart.texts[name], x, y, widths[name], height)
            x += widths[name] + GAP_X
        y += height + GAP_Y
    return boxes


def _draw_box(box: Box) -> str:
    texts = "".join(
        f'<text x="{box.x + box.width / 2:.0f}" y="{box.y + PAD + LINE * (index + 0.75):.0f}">{escape(line)}</text>'
        for index, line in enumerate(box.lines)
    )
    return f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="6"/>{texts}'


def _arrow(start: Box, end: Box, label: str, *, is_shared: bool) -> str:
    """An arrow with its label at its end, or at its start where its end is shared with others."""
    x1, y1, x2, y2 = start.x + start.width / 2, start.y + start.height, end.x + end.width / 2, end.y
    middle = (y1 + y2) / 2
    x, y = (x1, y1 + 18) if is_shared else (x2, y2 - 18)
    text = f'<text class="label" x="{x:.0f}" y="{y:.0f}">{escape(label)}</text>' if label else ""
    return f'<path d="M{x1:.0f},{y1:.0f} C{x1:.0f},{middle:.0f} {x2:.0f},{middle:.0f} {x2:.0f},{y2:.0f}" marker-end="url(#arrow)"/>{text}'


def charts_in(text: str) -> Iterator[str]:
    """The source of each mermaid picture of a page."""
    yield from re.findall(r"^```mermaid\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
