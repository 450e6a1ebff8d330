"""What routes of workflows and runs answer about a name or an id that the caller can't see."""

from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from gateway.calls.authorizer import CallRefused
from gateway.tasks.log import UnknownTask
from gateway.workflows.problems import UnknownRun, UnknownWorkflow
from policies.delegation.rulings import Denial
from registry.store import UnknownName

Handler = Callable[[Request], Awaitable[Response]]


class WorkflowRoute(APIRoute):
    """A route on which every unknown name is a workflow's, and every unknown task a run. A hidden refusal is one about an unknown name."""

    def get_route_handler(self) -> Handler:  # type: ignore[override]  # FastAPI declares a coroutine where it takes any awaitable
        handle = super().get_route_handler()

        async def handle_unknown(request: Request) -> Response:
            try:
                return await handle(request)
            except UnknownName as error:
                raise UnknownWorkflow(*error.args) from error
            except UnknownTask as error:
                raise UnknownRun from error
            except CallRefused as refused:
                if isinstance(refused.ruling, Denial) and refused.ruling.is_hidden:
                    raise UnknownWorkflow(refused.ruling.decision.act.resource) from refused
                raise

        return handle_unknown
