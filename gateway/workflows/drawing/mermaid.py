"""A workflow as a Mermaid flowchart: a switch is a diamond, a fork a group of lanes, and the nature of a step is its class."""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.workflows.drawing.outline import Block, Nature

CLASSES: Final[Mapping[Nature, str]] = {
    Nature.AI: "fill:#efe7fb,stroke:#6b3fa0,color:#2b1745",
    Nature.FIXED: "fill:#e7f0fb,stroke:#2f6299,color:#12304f",
    Nature.PEOPLE: "fill:#fdf0d8,stroke:#a86a00,color:#4a2f00",
    Nature.WAIT: "fill:#eef1f4,stroke:#66707a,color:#2c333a,stroke-dasharray:4 3",
    Nature.FLOW: "fill:#ffffff,stroke:#8a929a,color:#2c333a",
}
_SHAPES: Final[Mapping[Nature, tuple[str, str]]] = {
    Nature.AI: ("([", "])"),
    Nature.FIXED: ("[", "]"),
    Nature.PEOPLE: ("[/", "/]"),
    Nature.WAIT: ("((", "))"),
    Nature.FLOW: ("[", "]"),
}


def mermaid_of(blocks: tuple[Block, ...]) -> str:
    return "\n".join(_Chart().lines(blocks)) + "\n"


class _Chart:
    """Numbers the nodes in the order of the document."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def lines(self, blocks: tuple[Block, ...]) -> Iterator[str]:
        yield "flowchart TD"
        yield "  start((start))"
        yield "  finish((end))"
        yield from self._sequence(blocks, ["start"], "finish", "  ")
        for nature, style in CLASSES.items():
            yield f"  classDef {nature} {style}"

    def _id(self, block: Block) -> str:
        return self._ids.setdefault(block.path, f"n{len(self._ids)}")

    def _sequence(self, blocks: tuple[Block, ...], before: list[str], after: str, indent: str) -> Iterator[str]:
        """Nodes and edges of a list of tasks that begins behind `before` and leads to `after`."""
        entries = {each.name: self._id(each) for each in blocks}
        for index, block in enumerate(blocks):
            following = self._id(blocks[index + 1]) if index + 1 < len(blocks) else after
            target = self._target(block.then, following, after, entries)
            for previous in before:
                yield f"{indent}{previous} --> {self._id(block)}"
            yield from self._node(block, indent)
            before = []
            if block.cases:
                for label, then in block.cases:
                    yield f"{indent}{self._id(block)} -->|{_quoted(label)}| {self._target(then, following, after, entries)}"
                if all(label != "otherwise" for label, _ in block.cases):
                    yield f"{indent}{self._id(block)} -->|{_quoted('otherwise')}| {target}"
            elif target == following and index + 1 < len(blocks):
                before = [self._id(block)]
            else:
                yield f"{indent}{self._id(block)} --> {target}"
        if not blocks:
            for previous in before:
                yield f"{indent}{previous} --> {after}"

    @staticmethod
    def _target(then: str, following: str, after: str, entries: Mapping[str, str]) -> str:
        return {"continue": following, "exit": after, "end": "finish"}.get(then, entries.get(then, following))

    def _node(self, block: Block, indent: str) -> Iterator[str]:
        node = self._id(block)
        text = _quoted(f"{block.name}<br/>{_plain(block.says)}" if block.says else block.name)
        if not block.parts:
            opening, closing = ("{", "}") if block.cases else _SHAPES[block.nature]
            yield f"{indent}{node}{opening}{text}{closing}:::{block.nature}"
            return
        yield f"{indent}subgraph {node}[{text}]"
        for number, (label, inner) in enumerate(block.parts):
            lane = f"{node}p{number}"
            yield f"{indent}  subgraph {lane}[{_quoted(label or ' ')}]"
            yield f"{indent}    {lane}e(( ))"
            yield from self._sequence(inner, [], f"{lane}e", f"{indent}    ")
            yield f"{indent}  end"
        yield f"{indent}end"


def _plain(text: str) -> str:
    """Text without the characters that Mermaid or HTML would read as their own."""
    return "".join({'"': "'", "<": "‹", ">": "›", "`": "'", "#": "＃", "\n": " "}.get(each, each) for each in text)[:80]


def _quoted(text: str) -> str:
    return '"' + "<br/>".join(_plain(each) for each in text.split("<br/>")) + '"'
