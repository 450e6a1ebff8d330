"""/livez, /readyz and /metrics on bare ASGI."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from gateway.ingress.http.asgi import BadHeader, Header, Receive, Scope, Send, respond
from gateway.ingress.http.authentication import ForeignOrigin, MetricsForbidden, RequestAuthentication, WrongHost
from gateway.ingress.http.error_bodies import respond_problem
from gateway.ingress.http.errors import HttpMethodNotAllowed, UnknownPath
from policies.callers import Caller
from policies.delegation.kills import Killed
from policies.tokens.verifier import TokenRefused

Check = Callable[[], bool]
Guard = Callable[[Scope], Awaitable[Exception | None]]  # why this caller may not read metrics

METRICS_PATH: Final = "/metrics"
HEALTH_PATHS: Final = frozenset({"/livez", "/readyz", METRICS_PATH})
TOLERATED_CHECKS: Final = frozenset({"policies"})  # checks that may fail: the process works on with the last valid policies
NO_STORE: Final[Header] = (b"cache-control", b"no-store")
METRICS_MEDIA_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger()


class Health:
    """Serves HEALTH_PATHS. /livez and /readyz are public and name checks only; `find_refusal` guards /metrics."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        render_metrics: Callable[[], bytes],
        find_refusal: Guard,
        clock: Callable[[], float] = time.monotonic,
        challenge: str = "Bearer",
    ) -> None:
        self._checks = checks
        self._render_metrics = render_metrics
        self._find_refusal = find_refusal
        self._clock = clock
        self._challenge = challenge.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await respond_problem(send, HttpMethodNotAllowed(("GET", "HEAD")), [(b"allow", b"GET, HEAD")])
        elif scope["path"] == "/livez":
            await self._respond_live(send)
        elif scope["path"] == "/readyz":
            await self._respond_ready(send)
        elif scope["path"] == METRICS_PATH:
            await self._respond_metrics(scope, send)
        else:
            await respond_problem(send, UnknownPath())

    async def _respond_live(self, send: Send) -> None:
        """Answers 200, since any answer shows that the event loop runs. `lag_ms` is the duration of one iteration, for people."""
        began = self._clock()
        await asyncio.sleep(0)
        lag = self._clock() - began
        await respond(send, 200, json.dumps({"status": "alive", "lag_ms": round(lag * 1000, 1)}).encode(), [NO_STORE])

    async def _respond_ready(self, send: Send) -> None:
        passed = {name: passes(check, name) for name, check in self._checks.items()}
        failed = {name for name, has_passed in passed.items() if not has_passed}
        ready = failed <= TOLERATED_CHECKS
        status = "not ready" if not ready else "degraded" if failed else "ready"
        body = json.dumps({"status": status, "checks": passed}).encode()
        await respond(send, 200 if ready else 503, body, [NO_STORE])

    async def _respond_metrics(self, scope: Scope, send: Send) -> None:
        refusal = await self._find_refusal(scope)
        if refusal is None:
            await respond(send, 200, self._render_metrics(), [NO_STORE], METRICS_MEDIA_TYPE)
            return
        challenge = [(b"www-authenticate", self._challenge)] if isinstance(refusal, TokenRefused) else []
        await respond_problem(send, refusal, [NO_STORE, *challenge])


async def find_metrics_refusal(
    authentication: RequestAuthentication, scope: Scope, is_permitted: Callable[[Caller], bool]
) -> TokenRefused | MetricsForbidden | None:
    """Returns why the caller of a request may not read the metrics, or None.

    A caller whose token is not accepted here gets TokenRefused; one who is known, or was killed, gets MetricsForbidden.
    """
    try:
        return None if is_permitted(await authentication.authenticate(scope, METRICS_PATH)) else MetricsForbidden()
    except Killed:
        return MetricsForbidden()
    except (TokenRefused, WrongHost, ForeignOrigin, BadHeader):
        return TokenRefused("metrics")


def passes(check: Check, name: str = "") -> bool:
    """Returns whether a check passes. A check that raises fails, and is logged."""
    try:
        return check()
    except Exception:
        log.exception("readiness_check_failed", check=name)
        return False
