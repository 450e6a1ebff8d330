"""JSON values of a document in which texts of the form `${ … }` stand for the values of expressions."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.workflows.expressions.evaluator import Evaluator


def expression_in(text: str) -> str | None:
    """The expression of a text that is `${ … }` as a whole, else None."""
    stripped = text.strip()
    return stripped[2:-1].strip() if stripped.startswith("${") and stripped.endswith("}") else None


def bare_expression(text: str) -> str:
    """The expression of a member that holds nothing else, where the braces may be left out: `if`, `when`, `from`, `as`, `in`, `while`."""
    found = expression_in(text)
    return text if found is None else found


def expressions_of(template: Any) -> Iterator[str]:
    """Every expression within a value, in the order in which they stand there."""
    if isinstance(template, str):
        if (found := expression_in(template)) is not None:
            yield found
    elif isinstance(template, Mapping):
        for member in template.values():
            yield from expressions_of(member)
    elif isinstance(template, list | tuple):
        for element in template:
            yield from expressions_of(element)


async def fill(evaluator: Evaluator, template: Any, input: Any, variables: Mapping[str, Any]) -> Any:
    """The value with each expression replaced by what it evaluates to on `input`. Raises ExpressionFailed.

    What an expression evaluates to is data: it is not looked at for expressions again.
    """
    expressions = list(expressions_of(template))
    if not expressions:
        return template
    values = iter(await evaluator.evaluate(expressions, input, variables))
    return _filled(template, values)


def _filled(template: Any, values: Iterator[Any]) -> Any:
    if isinstance(template, str):
        return template if expression_in(template) is None else next(values)
    if isinstance(template, Mapping):
        return {name: _filled(member, values) for name, member in template.items()}
    if isinstance(template, list | tuple):
        return [_filled(element, values) for element in template]
    return template
