"""What is refused at a door stands in the log: why, where, and whether it was the same thing again, but never what it claimed."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.ingress.http.rejected_credentials import LINES_PER_WINDOW, RejectedCredentialLog
from gateway.telemetry.logs import configure_logging
from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.tokens.verifier import mint_development_token
from tests.fakes.clock import Clock
from tests.fakes.house import House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def lines(sink: io.StringIO) -> list[dict[str, Any]]:
    return [found for text in sink.getvalue().splitlines() if (found := json.loads(text))["event"] == "refused"]


@pytest.fixture
def sink(database_url: str) -> io.StringIO:
    stream = io.StringIO()
    configure_logging("info", str, stream)
    return stream


def test_a_flood_of_refusals_is_a_few_lines_and_a_count(sink: io.StringIO) -> None:
    clock = Clock()
    refusals = RejectedCredentialLog(clock)
    for number in range(1000):
        refusals.log_rejection("signature", "/mcp", f"Bearer {number}")
    refusals.log_rejection("expired", "/mcp", "Bearer x")
    told = lines(sink)
    assert [line["reason"] for line in told] == ["signature"] * LINES_PER_WINDOW + ["expired"]
    assert len({line["fingerprint"] for line in told}) == LINES_PER_WINDOW + 1
    clock.now += 60
    refusals.log_rejection("signature", "/mcp", "Bearer 0")
    last = lines(sink)[-1]
    assert (last["left_out"], last["fingerprint"]) == (1000 - LINES_PER_WINDOW, told[0]["fingerprint"])


def test_empty_lists_are_a_few_lines_too(sink: io.StringIO) -> None:
    refusals = RejectedCredentialLog(Clock())
    for _ in range(1000):
        refusals.log_empty_list("roles-missing", "/mcp", "https://idp.test")
    told = [json.loads(text) for text in sink.getvalue().splitlines()]
    assert len(told) == LINES_PER_WINDOW
    assert {(line["event"], line["reason"], line["resource"], line["issuer"]) for line in told} == {
        ("list_empty", "roles-missing", "/mcp", "https://idp.test")
    }


# attack TOK-02, TOK-03, LOG-01
async def test_a_refused_token_is_logged_with_its_reason_at_every_door(home: House, sink: io.StringIO, tmp_path: Path) -> None:
    configure_logging("info", str, sink)  # the gateway has its own
    stranger = mint_development_token(
        SigningKeys.open(tmp_path / "other"), Principal("default", "interlock-development", "alice"), home.url
    )
    expired = home.token("alice", ttl=-120)
    good = home.token("alice")
    head, claims, signature = good.split(".")
    for path, given, reason in (
        ("/agents/sales", None, "missing"),
        ("/mcp", "Bearer", "malformed"),
        ("/api/tasks", f"Bearer {stranger}", "kid"),
        ("/api/tasks", f"Bearer {expired}", "expired"),
        ("/agents/sales", f"Bearer {head}.{claims}.{signature[:-8]}AAAAAAAA", "signature"),
    ):
        method = "GET" if path.startswith("/api") else "POST"
        answer = await home.http.request(
            method, path, headers={"authorization": given} if given else {}, json={} if method == "POST" else None
        )
        assert answer.status_code == 401
        line = lines(sink)[-1]
        assert line["reason"] == reason, line
        assert line["resource"] == ("/api" if path.startswith("/api") else path)
    unproved = await home.http.post("/oauth/token", data={"grant_type": "x"}, auth=("client_x", "s3cret"))
    assert unproved.status_code == 401
    assert (lines(sink)[-1]["reason"], lines(sink)[-1]["resource"]) == ("client", "/oauth/token")
    written = sink.getvalue()
    assert len(lines(sink)) == 6
    for secret in (stranger, expired, "s3cret", "client_x", claims):
        assert secret not in written
    assert (await home.http.get("/api/tasks", headers={"authorization": f"Bearer {good}"})).status_code == 200
    assert len(lines(sink)) == 6
