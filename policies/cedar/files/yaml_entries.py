"""Reads a YAML document that is one list under one name, and the line in which each entry begins."""

from typing import Any

import yaml

DEPTH_MAX = 64  # levels, as of JSON
UNREADABLE = (ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)  # from an impossible date or `!!bool x`


class NotEntries(Exception):
    """The document does not have that form; `problem` is for its author. `line` counts from 1."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


class _DepthLimitedLoader(yaml.SafeLoader):
    """Raises NotEntries for a document that is nested too deeply or contains itself, before the stack overflows."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._ancestors: list[yaml.Node | None] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._ancestors.append(parent)
        begins: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the library's stubs leave it out
        line = begins.start_mark.line + 1
        if len(self._ancestors) > DEPTH_MAX:
            raise NotEntries(f"is nested too deeply: more than {DEPTH_MAX} levels", line)
        try:
            node = super().compose_node(parent, index)
            if any(node is each for each in self._ancestors):
                raise NotEntries("has an alias that refers to an enclosing node", line)
            return node
        finally:
            self._ancestors.pop()


def read_entries(text: str, name: str) -> list[tuple[Any, int]] | None:
    """The entries with their lines; None for an empty document. Raises NotEntries, and nothing else for any text."""
    try:
        root = yaml.compose(text, _DepthLimitedLoader)
    except yaml.YAMLError as error:
        raise NotEntries(f"is not YAML: {_first_line(error)}", _line_of_error(error, text)) from error
    if root is None:
        return None
    match root:
        case yaml.MappingNode(value=[(yaml.ScalarNode(value=found), yaml.SequenceNode(value=listed))]) if found == name:
            return [(_construct(node), node.start_mark.line + 1) for node in listed]
    raise NotEntries(f"must have `{name}:` with a list, and nothing else", 1)


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except (yaml.YAMLError, *UNREADABLE) as error:
        raise NotEntries(f"has an unreadable value: {_first_line(error)}", node.start_mark.line + 1) from error


def _line_of_error(error: yaml.YAMLError, text: str) -> int:
    """The line of an error. Errors without a mark are about an invalid character, and have its position."""
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", None)) + 1


def _first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return str(getattr(error, "problem", None) or error).partition("\n")[0]
