"""The addresses of the console, and its navigation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.ingress.console.page import Handler
from gateway.ingress.console.pages import overview, tasks

NAVIGATION: Final[Sequence[tuple[str, str]]] = (
    ("/console", "Overview"),
    ("/console/tasks", "Tasks"),
)
_NAME = r"([^/]{1,300})"


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a request, and the place in the navigation. `names` are the variable segments of the path."""

    handler: Handler
    nav: str
    names: tuple[str, ...] = ()


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\}", _NAME, path))


_PAGES: Final[Sequence[tuple[str, str, Handler, str]]] = (
    ("GET", "/console/?", overview.show_overview, "/console"),
    ("GET", "/console/tasks", tasks.list_tasks, "/console/tasks"),
    ("GET", "/console/tasks/{}", tasks.show_task, "/console/tasks"),
    ("POST", "/console/tasks/{}/cancel", tasks.cancel_task, "/console/tasks"),
)
_COMPILED = tuple((method, _pattern(path), handler, nav) for method, path, handler, nav in _PAGES)
PATHS: Final = tuple((method, path) for method, path, _, _ in _PAGES)


def find_route(method: str, path: str) -> Route | None:
    """Returns the route of a request, or None."""
    for known, pattern, handler, nav in _COMPILED:
        if known == method and (found := pattern.fullmatch(path)) is not None:
            return Route(handler, nav, found.groups())
    return None
