"""Explains why the gateway refuses the token in INTERLOCK_TOKEN, by the token's unverified claims."""

import base64
import json
import shlex
import time
from datetime import datetime
from typing import Any

from gateway.cli.exit_codes import CommandRefused

DEVELOPMENT_ISSUER = "interlock-development"


def explain_rejected_token(token: str, url: str) -> CommandRefused:
    """Returns the error for a token that the gateway at `url` refuses, with its reason as far as the claims show it, and what to do."""
    if not token:
        todo = f"sign in: interlock login; or {_renew_todo({})}"
        return CommandRefused("INTERLOCK_TOKEN is not set, so the gateway does not know who you are", todo)
    claims = _decode_claims(token)
    if not claims:
        return CommandRefused("the gateway does not know who you are: INTERLOCK_TOKEN is not a token", _renew_todo({}))
    expires = claims.get("exp")
    if isinstance(expires, int | float) and expires <= time.time():
        at = datetime.fromtimestamp(expires).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return CommandRefused(f"your token has expired, at {at}", _renew_todo(claims))
    audience = claims.get("aud")
    named = audience if isinstance(audience, str) else " ".join(map(str, audience or ()))
    if url not in named.split():
        return CommandRefused(
            f"the gateway at {url} does not accept your token, which is for {named or 'no gateway'}",
            f"if that is the same gateway: export INTERLOCK_URL={named}; else {_renew_todo(claims)}" if named else _renew_todo(claims),
        )
    todo = _renew_todo(claims)
    if claims.get("iss") == DEVELOPMENT_ISSUER:
        todo = f"in the folder in which that gateway was started, or with its INTERLOCK_HOME: {todo}"
    return CommandRefused("the gateway does not accept your token: it was signed by other keys, or is no longer valid", todo)


def _renew_todo(claims: dict[str, Any]) -> str:
    if "sid" in claims:
        return "sign in again: interlock login"
    if claims and claims.get("iss") != DEVELOPMENT_ISSUER:
        return f"get a fresh token from {claims.get('iss') or 'your identity provider'}: export INTERLOCK_TOKEN=…"
    user = shlex.quote(str(claims.get("sub") or "alice"))
    return f"export INTERLOCK_TOKEN=$(interlock token --user {user})"


def _decode_claims(token: str) -> dict[str, Any]:
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
