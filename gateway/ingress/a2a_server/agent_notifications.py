"""Receives push notifications of agents: POST /agents/{name}/notifications/{secret}.

A notification only wakes the gateway up to ask the agent for the task; its content is not used.
"""

from adapters.a2a_client.push_wakeups import PushWakeups
from adapters.a2a_client.wire import tolerant
from adapters.contract import UpstreamFault
from gateway.ingress.http.asgi import BadHeader, BodyIncomplete, BodyTooLarge, Receive, Scope, Send, read_body, respond
from gateway.ingress.http.error_bodies import respond_problem
from gateway.ingress.http.errors import HttpMethodNotAllowed, UnknownPath
from policies.strict_json import BadJson, parse, run_off_loop

BODY_MAX = 1 << 20  # bytes


class NotificationEndpoint:
    """Answers push notifications. The secret in the path is the only credential; a wrong one is answered like an unknown path."""

    def __init__(self, push_wakeups: PushWakeups) -> None:
        self._push_wakeups = push_wakeups

    async def __call__(self, scope: Scope, receive: Receive, send: Send, agent: str, secret: str) -> None:
        wakeup = self._push_wakeups.find(agent, secret)
        if wakeup is None:
            await respond_problem(send, UnknownPath())
        elif scope["method"] != "POST":
            await respond_problem(send, HttpMethodNotAllowed(("POST",)), [(b"allow", b"POST")])
        elif (status := await _rejection_status(scope, receive)) is not None:
            await respond(send, status, b"{}")
        else:
            wakeup.wake()
            await respond(send, 202, b"{}")


async def _rejection_status(scope: Scope, receive: Receive) -> int | None:
    """Returns the HTTP status for a body that is not a notification of either version, or None.

    A notification with an unknown task state is accepted, since the gateway asks the agent anyway.
    """
    try:
        tolerant.read_event(await run_off_loop(parse, await read_body(scope, receive, BODY_MAX)))
    except BodyTooLarge:
        return 413
    except tolerant.UnknownState:
        return None
    except (BadHeader, BodyIncomplete, BadJson, UpstreamFault):
        return 400
    return None
