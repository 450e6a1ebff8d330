"""What endpoints of OAuth clients do alike: a form, a client that proves who it is and comes not too fast, and errors of RFC 6749."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.calls.limits.limits import LimitReached
from gateway.ingress.http.rejected_credentials import LogRejection
from gateway.ingress.oauth.client import ClientAuthentication, read_authorization
from gateway.ingress.oauth.form import read_form
from policies.tokens.hop_tokens import ExchangeRefused
from registry.cards.card import Registration

NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 s5.1
CountRequest = Callable[[str, str], None]  # gateway/calls/limits/limits.py Limits.ask
AnswerClient = Callable[[Registration, Mapping[str, str]], Awaitable[Response]]
"""Of the agent that asks and its form. Raises ExchangeRefused."""


@dataclass(frozen=True, slots=True)
class ClientEndpoint:
    """`noted` hears of clients that nobody knows: they are nobody's to keep an audit record of. `asked` may refuse an agent."""

    client_authentication: ClientAuthentication
    log_rejection: LogRejection
    count_request: CountRequest

    async def answer(self, request: Request, answer_client: AnswerClient) -> Response:
        """What `act` answers, or why nothing was done."""
        try:
            form = await read_form(request)
            client = await self.client_authentication.authenticate(read_authorization(request), form)
            self.count_request(f"{client.tenant}||", client.name)
            return await answer_client(client, form)
        except LimitReached as reached:
            return _rate_limited_response(reached)
        except ExchangeRefused as refused:
            if refused.error == "invalid_client":
                self.log_rejection("client", request.scope["path"], request.headers.get("authorization", ""))
            return _refusal_response(refused)


def _refusal_response(refusal: ExchangeRefused) -> JSONResponse:
    """RFC 6749 s5.2."""
    unproved = refusal.error == "invalid_client"
    challenge = {"www-authenticate": 'Basic realm="interlock", charset="UTF-8"'} if unproved else {}
    body = {"error": refusal.error, "error_description": _printable_description(str(refusal))}
    return JSONResponse(body, 401 if unproved else 400, headers={**NO_STORE, **challenge})


def _rate_limited_response(reached: LimitReached) -> JSONResponse:
    """429 in the same shape, and the seconds to wait."""
    body = {"error": "temporarily_unavailable", "error_description": _printable_description(str(reached))}
    return JSONResponse(body, 429, headers={**NO_STORE, "retry-after": str(reached.retry_after)})


def _printable_description(text: str) -> str:
    """The characters that RFC 6749 s5.2 allows there."""
    return "".join(mark if " " <= mark <= "~" and mark not in '"\\' else "?" for mark in text)
