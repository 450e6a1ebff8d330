"""/livez, /readyz and /metrics."""

import json
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest

from gateway.server.health import HEALTH_PATHS, Health
from policies.tokens.verifier import TokenRefused


class Answer:
    """What an ASGI application sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")


async def ask(health: Health, path: str, method: str = "GET") -> Answer:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    answer = Answer()
    await health({"type": "http", "method": method, "path": path, "headers": []}, receive, answer.send)
    return answer


def made(allowed: bool = True, clock: Callable[[], float] | None = None, **checks: Callable[[], bool]) -> Health:
    async def guard(scope: object) -> Exception | None:
        return None if allowed else TokenRefused("metrics")

    return Health(checks, lambda: b"interlock_calls_total 1\n", guard, clock or (lambda: 0.0))


async def test_a_turning_process_is_alive() -> None:
    answer = await ask(made(), "/livez")
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "alive")


async def test_a_busy_loop_is_alive() -> None:
    times: Iterator[float] = iter([10.0, 42.5])
    answer = await ask(made(clock=lambda: next(times)), "/livez")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "alive", "lag_ms": 32500.0})


async def test_liveness_does_not_ask_the_database() -> None:
    assert (await ask(made(database=lambda: False), "/livez")).status == 200


async def test_ready_when_every_check_passes() -> None:
    answer = await ask(made(database=lambda: True, policies=lambda: True), "/readyz")
    assert (answer.status, json.loads(answer.body)["checks"]) == (200, {"database": True, "policies": True})


async def test_one_check_that_fails_or_breaks_makes_it_unready() -> None:
    def broken() -> bool:
        raise OSError("disk of db.internal.example is gone")

    answer = await ask(made(database=broken, policies=lambda: True), "/readyz")
    assert (answer.status, json.loads(answer.body)["checks"]) == (503, {"database": False, "policies": True})
    assert b"example" not in answer.body


async def test_a_check_that_the_work_can_go_on_without_makes_it_degraded_and_not_unready() -> None:
    answer = await ask(made(database=lambda: True, policies=lambda: False), "/readyz")
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "degraded")


async def test_figures_are_for_those_who_may_read_them() -> None:
    answer = await ask(made(), "/metrics")
    assert (answer.status, answer.body) == (200, b"interlock_calls_total 1\n")
    assert answer.headers[b"content-type"].startswith(b"text/plain")
    refused = await ask(made(allowed=False), "/metrics")
    assert (refused.status, refused.headers[b"www-authenticate"]) == (401, b"Bearer")
    assert b"calls" not in refused.body


@pytest.mark.parametrize("path", sorted(HEALTH_PATHS))
async def test_nothing_is_written_here(path: str) -> None:
    answer = await ask(made(), path, "POST")
    assert (answer.status, answer.headers[b"allow"]) == (405, b"GET, HEAD")


async def test_another_path_is_unknown() -> None:
    assert (await ask(made(), "/livez2")).status == 404


@pytest.mark.parametrize(
    ("path", "method", "status", "reason"),
    [("/metrics", "GET", 401, "unauthenticated"), ("/livez", "POST", 405, "wrong-verb"), ("/other", "GET", 404, "unknown-path")],
)
async def test_a_refusal_is_a_problem_with_its_reason(path: str, method: str, status: int, reason: str) -> None:
    answer = await ask(made(allowed=False), path, method)
    assert (answer.status, json.loads(answer.body)["reason_id"]) == (status, reason)
    assert answer.headers[b"content-type"] == b"application/problem+json"
