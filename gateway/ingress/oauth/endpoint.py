"""The frame of OAuth endpoints for clients: the form, client authentication, the rate limit, and errors of RFC 6749."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.calls.limits.meters import LimitReached
from gateway.ingress.http.error_bodies import trace_data
from gateway.ingress.http.rejected_credentials import LogRejection
from gateway.ingress.oauth.client import ClientAuthentication, read_authorization
from gateway.ingress.oauth.form import read_form
from policies.tokens.hop_tokens import ExchangeRefused
from registry.cards.card import Registration

NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 s5.1
CountRequest = Callable[[str, str], None]  # counts a request of an owner at a name (gateway/calls/limits/meters.py)
AnswerClient = Callable[[Registration, Mapping[str, str]], Awaitable[Response]]
"""Answers an authenticated agent and its form. Raises ExchangeRefused."""
AnswerForm = Callable[[Mapping[str, str]], Awaitable[Response | None]]
"""Answers a request of a client of people by its form, or returns None for one of an agent. Raises ExchangeRefused."""


@dataclass(frozen=True, slots=True)
class ClientEndpoint:
    """Handles requests of OAuth clients.

    `log_rejection` logs clients that failed to authenticate; they belong to no tenant, so the audit has no record of them. `count_request`
    raises LimitReached for an agent over its rate.
    """

    client_authentication: ClientAuthentication
    log_rejection: LogRejection
    count_request: CountRequest

    async def answer(self, request: Request, answer_client: AnswerClient, answer_form: AnswerForm | None = None) -> Response:
        """Returns the response of `answer_form` or else of `answer_client`, or an OAuth error."""
        try:
            form = await read_form(request)
            if answer_form is not None and (answered := await answer_form(form)) is not None:
                return answered
            client = await self.client_authentication.authenticate(read_authorization(request), form)
            self.count_request(f"{client.tenant}||", client.name)
            return await answer_client(client, form)
        except LimitReached as reached:
            return rate_limited_response(reached)
        except ExchangeRefused as refused:
            if refused.error == "invalid_client":
                self.log_rejection("client", request.scope["path"], request.headers.get("authorization", ""))
            return _refusal_response(refused)


def _refusal_response(refusal: ExchangeRefused) -> JSONResponse:
    """Returns the error response of RFC 6749 s5.2."""
    unproved = refusal.error == "invalid_client"
    challenge = {"www-authenticate": 'Basic realm="interlock", charset="UTF-8"'} if unproved else {}
    status = 401 if unproved else 503 if refusal.error == "temporarily_unavailable" else 400
    return error_response(refusal.error, str(refusal), status, challenge)


def rate_limited_response(reached: LimitReached) -> JSONResponse:
    """Returns 429 as an OAuth error with Retry-After."""
    return error_response("temporarily_unavailable", str(reached), 429, {"retry-after": str(reached.retry_after)})


def error_response(error: str, description: str, status: int = 400, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns an error of RFC 6749 s5.2, with the trace id as a further member."""
    body = {"error": error, "error_description": _printable_description(description), **trace_data()}
    return JSONResponse(body, status, headers={**NO_STORE, **(headers or {})})


def _printable_description(text: str) -> str:
    """Replaces characters that RFC 6749 s5.2 does not allow in error_description."""
    return "".join(mark if " " <= mark <= "~" and mark not in '"\\' else "?" for mark in text)
