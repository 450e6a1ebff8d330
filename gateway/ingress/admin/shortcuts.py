"""Serves the paths that get most requests without the framework, whose search among its routes takes as long as the rest of a request."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from gateway.ingress.http.asgi import Receive, Scope, Send

NAME_MAX: Final = 64
AnswerError = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A route of the framework too, which describes it. `path` may end in a parameter in braces; `serve` gets its value, or nothing."""

    method: str
    path: str
    serve: Callable[[Request, str], Awaitable[Response]]


class ShortcutRoutes:
    """The application: shortcuts, and the framework for everything else."""

    def __init__(self, framework: FastAPI, shortcuts: Mapping[tuple[str, str], Shortcut], answer_error: AnswerError) -> None:
        self.framework = framework
        self.shortcuts = shortcuts
        self._answer_error = answer_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found, name = self._find(scope) if scope["type"] == "http" else (None, "")
        if found is None:
            await self.framework(scope, receive, send)
            return
        scope["route"] = found  # names the span
        request = Request(scope, receive)
        try:
            answer = await found.serve(request, name)
        except Exception as error:  # noqa: BLE001 (the root of a request, whose failures the table of errors answers)
            answer = await self._answer_error(request, error)
        await answer(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Shortcut | None, str]:
        """The shortcut of a request, and the last segment of its path where that is a parameter."""
        method, path = scope["method"], scope["path"]
        if (exact := self.shortcuts.get((method, path))) is not None:
            return exact, ""
        folder, _, name = path.rpartition("/")
        return (self.shortcuts.get((method, f"{folder}/")) if 0 < len(name) <= NAME_MAX else None), name


def index_shortcuts(shortcuts: "tuple[Shortcut, ...]") -> dict[tuple[str, str], Shortcut]:
    """The shortcuts by method and path; one with a parameter by the path before it."""
    return {(each.method, each.path.partition("{")[0]): each for each in shortcuts}
