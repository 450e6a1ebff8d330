"""No attribute is set on an object after its construction, except its state by its own area."""

from tests.house import construction
from tests.house.source import Source, assert_kept, product


def made(text: str, path: str = "gateway/server/app.py") -> Source:
    return Source(path, text)


def test_no_attribute_is_set_from_outside_its_area() -> None:
    problems, unused = construction.set_from_outside(product())
    assert not problems, "\n" + "\n".join(problems)
    assert not unused, f"exceptions that allow nothing: {unused}"


def test_composition_changes_no_list_of_another_object() -> None:
    assert_kept(construction.changed_by_composition, product())


def test_every_attribute_is_defined_by_the_constructor() -> None:
    assert_kept(construction.late_attributes, product())


def test_no_callback_is_empty_after_construction() -> None:
    assert_kept(construction.empty_callbacks, product())


def test_no_class_has_setters() -> None:
    assert_kept(construction.setters, product())


def test_an_attribute_that_composition_sets_is_found() -> None:
    drain = made("class Drain:\n    def __init__(self):\n        self.takes_signals = False\n", "gateway/server/drain.py")
    problems, _ = construction.set_from_outside([drain, made("gateway.drain.takes_signals = True\n")])
    assert problems == ["gateway/server/app.py:1: sets gateway.drain.takes_signals of a finished object; pass it to the constructor"]


def test_state_is_set_by_its_area_only() -> None:
    session = made("class Session:\n    is_open: bool\n    _key: str\n", "adapters/mcp_client/legacy/sessions.py")
    text = "session.is_open, session._key = True, ''\nfor session.is_open in (): ...\n"
    own, _ = construction.set_from_outside([session, made(text, "adapters/mcp_client/pool.py")])
    other, _ = construction.set_from_outside([session, made(text, "adapters/upstream/egress.py")])
    assert (len(own), len(other)) == (1, 3)


def test_a_list_that_composition_extends_is_found() -> None:
    assert len(construction.changed_by_composition(made("gateway.on_start.append(step)\n"))) == 1
    assert construction.changed_by_composition(made("steps.append(step)\ngateway.lifecycle.on_start(step)\n")) == []


LOADER = """
class A:
    x: int
    def __init__(self):
        self._load()
    def _load(self):
        self.y = 1
    def start(self):
        self.x = self.{name} = 2
"""
HOOKED = """
class A:
    def __init__(self):
        self.hook: Callable[[], None] | None = None
    def use_hook(self, hook: Callable[[], None], size: int):
        self.hook = hook
        self.size = size
"""


def test_an_attribute_that_a_method_defines_is_found() -> None:
    assert construction.late_attributes(made(LOADER.format(name="y"))) == []
    assert construction.late_attributes(made(LOADER.format(name="z"))) == ["gateway/server/app.py: A.z is not defined by the constructor"]


def test_an_empty_callback_and_its_setter_are_found() -> None:
    assert len(construction.empty_callbacks(made(HOOKED))) == 1
    assert len(construction.setters(made(HOOKED))) == 1
