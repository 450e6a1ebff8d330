"""Pictures of workflows: what they show, and that nothing of a document gets out of its text."""

from xml.etree import ElementTree

import pytest

from gateway.workflows.drawing.layout import BlockLane, lay_out
from gateway.workflows.drawing.outline import Nature, outline_of
from gateway.workflows.drawing.step_states import StepState, step_states
from gateway.workflows.drawing.svg import WORDS, svg_of
from gateway.workflows.drawing.tree import tree_of
from tests.gateway.workflows.documents import document_of

SVG = "{http://www.w3.org/2000/svg}"
CONTRACT = "input: {schema: {document: {}}}, output: {schema: {document: {}}}, metadata: {gateway: {kind: ai}}"
EVERYTHING = f"""
- all:
    fork:
      branches:
      - ask: {{call: gateway.agent, with: {{agent: sales}}, {CONTRACT}}}
      - check: {{call: gateway.tool, with: {{tool: stock.check}}}}
- which: {{switch: [{{big: {{when: .n > 1, then: approve}}}}, {{small: {{then: end}}}}]}}
- pause: {{wait: PT1H}}
- approve: {{call: gateway.approve, with: {{prompt: Go}}}}
- guard: {{try: [{{one: {{set: {{x: 1}}}}}}], catch: {{do: [{{two: {{set: {{x: 2}}}}}}]}}}}
"""


def draw(tasks: str, title: str = "Example") -> ElementTree.Element:
    return ElementTree.fromstring(svg_of(title, outline_of(document_of(tasks))))


def texts(picture: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in picture.iter(f"{SVG}text")]


def test_a_picture_names_every_task_and_nature() -> None:
    shown = texts(draw(EVERYTHING))
    assert {"◆ ask", "■ check", "○ pause", "● approve", "guard", "which", "agent sales", ".n > 1 → approve"} <= set(shown)
    assert {word for nature, word in WORDS.items() if nature is not Nature.FLOW} <= set(shown)


def test_fixed_and_reasoning_steps_have_shapes_of_their_own() -> None:
    boxes = {each.get("class"): each.get("rx") for each in draw(EVERYTHING).iter(f"{SVG}rect") if each.get("rx")}
    assert boxes["ai"] != boxes["fixed"]
    style = next(draw(EVERYTHING).iter(f"{SVG}style")).text or ""
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for nature in Nature:
        assert f".{nature}{{fill:" in light and f".{nature}{{fill:" in dark


def test_branches_of_a_fork_are_one_list_of_a_tree() -> None:
    lines = tree_of("Example", outline_of(document_of(EVERYTHING)))
    assert lines[:4] == [
        "Example",
        "├─ all  · at once",
        "│  ├─ ask  ◆ ai agent sales",
        "│  └─ check  ■ fixed tool stock.check",
    ]
    assert lines[-4:] == ["   try:", "     └─ one  ■ fixed set", "   catch:", "     └─ two  ■ fixed set"]


EVIL = "<script>alert(1)</script>&\"'\u202e]]>"


def test_text_of_a_document_stays_text() -> None:
    tasks = "- a: {switch: [{b: {when: '.x == \"<script>alert(1)</script>\"', then: end}}]}"
    picture = svg_of(EVIL, outline_of(document_of(tasks)))
    assert "<script" not in picture and "\u202e" not in picture
    root = ElementTree.fromstring(picture)
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        "svg", "title", "style", "defs", "marker", "path", "rect", "text", "circle", "g", "polygon",
    }  # fmt: skip
    assert not any(name.startswith("on") or "href" in name for each in root.iter() for name in each.attrib)
    assert "url(" not in picture.replace("url(#tip)", "") and "@import" not in picture


def _inner(lane: BlockLane) -> list[BlockLane]:
    return [lane, *(found for item in lane.items for each in item.lanes for found in _inner(each))]


def test_blocks_do_not_overlap() -> None:
    for lane in _inner(lay_out(outline_of(document_of(EVERYTHING)))):
        for above, below in zip(lane.items, lane.items[1:], strict=False):
            assert above.bottom < below.y
        for item in lane.items:
            assert lane.x <= item.x and item.x + item.width <= lane.x + lane.width + 0.01
            assert all(item.x <= each.x and each.x + each.width <= item.x + item.width for each in item.lanes)
            assert all(item.y < each.y and each.y + each.height <= item.bottom for each in item.lanes)


@pytest.mark.parametrize("tasks", ["- a: {wait: PT1S, then: c}\n- b: {wait: PT1S}\n- c: {wait: PT1S, then: a}", "- a: {do: []}"])
def test_ways_past_blocks_are_drawn_within_the_picture(tasks: str) -> None:
    picture = draw(tasks)
    width = float(picture.get("width", "0"))
    for path in picture.iter(f"{SVG}path"):
        if path.get("class") == "way":
            numbers = [float(step[1:].split(",")[0]) for step in (path.get("d") or "").split() if step[0] in "MLH"]
            assert all(0 <= number <= width for number in numbers)


def test_a_long_text_is_shortened() -> None:
    shown = texts(draw(f"- a: {{switch: [{{b: {{when: '.x == \"{'y' * 500}\"', then: end}}}}]}}"))
    assert max(len(text) for text in shown) < 80


def test_a_picture_of_a_run_marks_the_steps_that_ended_or_wait() -> None:
    run = {
        "steps": [{"step": "/do/0/ask", "fault": {}}, {"step": "/do/0/ask", "value": 1}, {"step": "/do/1/check", "fault": {"type": "x"}}],
        "checkpoints": [{"step": "/do/2/approve", "state": "pending"}, {"step": "/do/3/asked", "state": "answered"}],
    }
    states = step_states(run)
    assert states == {"/do/0/ask": StepState.DONE, "/do/1/check": StepState.FAILED, "/do/2/approve": StepState.WAITS}
    blocks = outline_of(document_of("- one: {set: {x: 1}}\n- two: {set: {x: 2}}"))
    shown = texts(ElementTree.fromstring(svg_of("Run", blocks, {"/do/1/two": StepState.FAILED})))
    assert "✕ failed" in shown and "✓ done" not in shown
