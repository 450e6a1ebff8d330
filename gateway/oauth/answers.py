"""What a client is told where nothing is given to it: the words and the shape of RFC 6749."""

from starlette.responses import JSONResponse

from gateway.limits import LimitReached
from policies.hop_tokens import ExchangeRefused

NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 s5.1


def refusal(refused: ExchangeRefused) -> JSONResponse:
    """RFC 6749 s5.2."""
    unproved = refused.error == "invalid_client"
    challenge = {"www-authenticate": 'Basic realm="interlock", charset="UTF-8"'} if unproved else {}
    body = {"error": refused.error, "error_description": _description(str(refused))}
    return JSONResponse(body, 401 if unproved else 400, headers={**NO_STORE, **challenge})


def too_fast(reached: LimitReached) -> JSONResponse:
    body = {"error": "temporarily_unavailable", "error_description": _description(str(reached))}
    return JSONResponse(body, 429, headers={**NO_STORE, "retry-after": str(reached.retry_after)})


def _description(text: str) -> str:
    """The characters that RFC 6749 s5.2 allows there."""
    return "".join(mark if " " <= mark <= "~" and mark not in '"\\' else "?" for mark in text)
