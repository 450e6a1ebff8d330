"""Templates of operators, such as `order {data.order}`: an event gives the values, and nothing in it is read as a template."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

TEXT_MAX: Final = 16_384  # characters of a text that a template makes
_PLACE: Final = re.compile(r"\{([a-z][a-z0-9]{0,63}(?:\.[^{}.\s]{1,64}){0,15})\}")


class ValueMissing(Exception):
    """The event lacks a value that the template names, or the text would be too long; the message says which."""


def render(template: Any, event: Mapping[str, Any]) -> Any:
    """The template with the event's values. A text that is one place alone becomes the value itself. Raises ValueMissing."""
    if isinstance(template, str):
        whole = _PLACE.fullmatch(template)
        return render_text(template, event) if whole is None else _find_value(whole[1], event)
    if isinstance(template, Mapping):
        return {name: render(value, event) for name, value in template.items()}
    if isinstance(template, list):
        return [render(value, event) for value in template]
    return template


def render_text(template: str, event: Mapping[str, Any]) -> str:
    """The text with the event's values, each written once. Raises ValueMissing."""
    text = _PLACE.sub(lambda place: _to_text(_find_value(place[1], event)), template)
    if len(text) > TEXT_MAX:
        raise ValueMissing(f"the text of a template would have more than {TEXT_MAX} characters")
    return text


def _find_value(path: str, event: Mapping[str, Any]) -> Any:
    value: Any = event
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 6 and int(step) < len(value):
            value = value[int(step)]
        else:
            raise ValueMissing(f"the event has no `{path}`")
    return value


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
