"""Entries of a YAML document that is one list under one name, each with the line in which it begins."""

from typing import Any

import yaml

UNREADABLE = (ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)  # of a day that no month has, of `!!bool x`


class NotEntries(Exception):
    """The document is something else; `problem` is for whoever wrote it. `line` counts from 1; 0: of no line."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def entries(text: str, name: str) -> list[tuple[Any, int]] | None:
    """None where nothing is written at all. Raises NotEntries, and nothing else whatever the text is."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise NotEntries(f"is not YAML: {_problem(error)}", mark.line + 1 if mark else 0) from error
    if root is None:
        return None
    match root:
        case yaml.MappingNode(value=[(yaml.ScalarNode(value=found), yaml.SequenceNode(value=listed))]) if found == name:
            return [(_read(node), node.start_mark.line + 1) for node in listed]
    raise NotEntries(f"must have `{name}:` with a list, and nothing else", 1)


def _read(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except (yaml.YAMLError, *UNREADABLE) as error:
        raise NotEntries(f"has what can't be read: {_problem(error)}", node.start_mark.line + 1) from error


def _problem(error: Exception) -> str:
    """In one line."""
    return str(getattr(error, "problem", None) or error).partition("\n")[0]
