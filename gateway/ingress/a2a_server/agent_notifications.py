"""Where agents push to: POST /agents/{name}/notifications/{secret}. What is pushed only says that it is worth asking the agent now."""

from adapters.a2a_client.push_wakeups import PushWakeups
from adapters.a2a_client.wire import tolerant
from adapters.contract import UpstreamFault
from gateway.ingress.http.asgi import BadHeader, BodyIncomplete, BodyTooLarge, Receive, Scope, Send, read_body, respond
from gateway.ingress.http.error_bodies import respond_problem
from gateway.ingress.http.errors import HttpMethodNotAllowed, UnknownPath
from policies.strict_json import BadJson, parse, run_off_loop

BODY_MAX = 1 << 20  # bytes


class NotificationEndpoint:
    """The secret in the address is all that lets anybody in; a wrong one is answered like any address that is nobody's."""

    def __init__(self, push_wakeups: PushWakeups) -> None:
        self._push_wakeups = push_wakeups

    async def __call__(self, scope: Scope, receive: Receive, send: Send, agent: str, secret: str) -> None:
        bell = self._push_wakeups.find(agent, secret)
        if bell is None:
            await respond_problem(send, UnknownPath())
        elif scope["method"] != "POST":
            await respond_problem(send, HttpMethodNotAllowed(("POST",)), [(b"allow", b"POST")])
        elif (status := await _rejection_status(scope, receive)) is not None:
            await respond(send, status, b"{}")
        else:
            bell.wake()
            await respond(send, 202, b"{}")


async def _rejection_status(scope: Scope, receive: Receive) -> int | None:
    """The status for a body that is no notification of either version; of one with a state unknown to us the agent can still be asked."""
    try:
        tolerant.read_event(await run_off_loop(parse, await read_body(scope, receive, BODY_MAX)))
    except BodyTooLarge:
        return 413
    except tolerant.UnknownState:
        return None
    except (BadHeader, BodyIncomplete, BadJson, UpstreamFault):
        return 400
    return None
