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
class DirectRoute:
    """A route of the framework too, which describes it. `path` may end in a parameter in braces; `serve` gets its value, or nothing."""

    method: str
    path: str
    serve: Callable[[Request, str], Awaitable[Response]]


class DirectRoutes:
    """The application: direct routes, and the framework for everything else. The router answers errors that are not known here."""

    def __init__(
        self,
        framework: FastAPI,
        direct_routes: Mapping[tuple[str, str], DirectRoute],
        answer_error: AnswerError,
        known_errors: tuple[type[Exception], ...],
    ) -> None:
        self.framework = framework
        self.direct_routes = direct_routes
        self._answer_error = answer_error
        self._known_errors = known_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found, name = self._find(scope) if scope["type"] == "http" else (None, "")
        if found is None:
            await self.framework(scope, receive, send)
            return
        scope["route"] = found  # names the span
        request = Request(scope, receive)
        try:
            answer = await found.serve(request, name)
        except self._known_errors as error:
            answer = await self._answer_error(request, error)
        await answer(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[DirectRoute | None, str]:
        """The direct route of a request, and the last segment of its path where that is a parameter."""
        method, path = scope["method"], scope["path"]
        if (exact := self.direct_routes.get((method, path))) is not None:
            return exact, ""
        folder, _, name = path.rpartition("/")
        return (self.direct_routes.get((method, f"{folder}/")) if 0 < len(name) <= NAME_MAX else None), name


def index_routes(direct_routes: "tuple[DirectRoute, ...]") -> dict[tuple[str, str], DirectRoute]:
    """The routes by method and path; one with a parameter by the path before it."""
    return {(each.method, each.path.partition("{")[0]): each for each in direct_routes}
