"""memory: facts on the command line."""

from typing import Any

import pytest

from tests.fakes.gateway_api import Answer, GatewayApi
from tests.gateway.cli.conftest import CommandLine

FACT: dict[str, Any] = {
    "id": "f_1",
    "scope": "person",
    "text": "Likes tea",
    "version": 2,
    "sensitivity": 1,
    "source": {"written_by": "agent", "agent": "sales", "task_id": "t_1", "author": "default|i|alice"},
    "created": "2026-11-23T08:00:00.000Z",
    "updated": "2026-11-23T09:00:00.000Z",
    "expires": None,
}


def test_a_fact_is_put_with_its_expiry(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/memory", FACT, 201)
    assert "f_1 is remembered" in interlock("memory", "put", "Likes tea", "--sensitivity", "1", "--expires", "2030-01-01").out
    assert api.asked[0].body == {"text": "Likes tea", "scope": "person", "sensitivity": 1, "expires": "2030-01-01T00:00:00+00:00"}


def test_facts_are_found_by_words_and_listed(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/memory?q=tea+leaf&scope=person&limit=20", {"items": [FACT], "next": None})
    api.on("GET /api/memory?scope=workflow%3Aonboarding", {"items": [FACT], "next": None})
    shown = interlock("memory", "search", "tea", "leaf").out
    assert "Likes tea" in shown and "sales" in shown
    assert interlock("memory", "list", "--scope", "workflow:onboarding", "--json").json["items"] == [FACT]


def test_a_fact_is_shown_with_what_it_said_before(interlock: CommandLine, api: GatewayApi) -> None:
    old = {"version": 1, "text": "Likes coffee", "source": {"written_by": "person", "agent": None}, "at": FACT["created"]}
    api.on("GET /api/memory/f_1", {**FACT, "history": [old]})
    shown = interlock("memory", "show", "f_1").out
    assert "Likes tea" in shown and "Likes coffee" in shown and "t_1" in shown


def test_a_correction_names_the_version_that_was_read(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("PATCH /api/memory/f_1", {**FACT, "version": 3})
    assert "version 3" in interlock("memory", "correct", "f_1", "Likes coffee", "--version", "2").out
    assert (api.asked[0].body, api.asked[0].headers["if-match"]) == ({"text": "Likes coffee"}, '"2"')
    assert interlock("memory", "correct", "f_1").code == 2


def test_one_fact_or_everything_is_forgotten(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("DELETE /api/memory/f_1", None, 204)
    api.on("DELETE /api/memory?person=me", {"person": "default|i|alice", "erased": 3})
    assert interlock("memory", "forget", "f_1").code == 0
    assert "3 facts" in interlock("memory", "forget", "--everything").out


@pytest.mark.parametrize("given", [(), ("f_1", "--everything"), ("f_1", "--person", "default|i|bob")])
def test_it_must_be_clear_what_to_forget(interlock: CommandLine, api: GatewayApi, given: tuple[str, ...]) -> None:
    assert interlock("memory", "forget", *given).code == 2
    assert api.asked == []


def test_an_export_is_printed_as_lines(interlock: CommandLine, api: GatewayApi) -> None:
    api.answers["GET /api/memory/export?person=me"] = Answer('{"id": "f_1"}\n{"id": "f_2"}\n', content_type="application/x-ndjson")
    assert interlock("memory", "export").out.splitlines() == ['{"id":"f_1"}', '{"id":"f_2"}']
    assert interlock("memory", "export", "--person", "default|i|bob").code != 0


def test_operators_hold_back_and_release_a_source(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/memory/quarantines", {"agent": "sales", "quarantined": True, "facts": 2}, 201)
    api.on(
        "GET /api/memory/quarantines",
        {"items": [{"agent": "sales", "facts": 2, "by": "x", "at": FACT["created"], "reason": "lies"}], "next": None},
    )
    api.on("DELETE /api/memory/quarantines/sales", None, 204)
    assert "2 facts" in interlock("memory", "quarantine", "sales", "--reason", "lies").out
    assert "lies" in interlock("memory", "quarantines").out
    assert interlock("memory", "release", "sales").code == 0


def test_the_conversation_of_a_context_is_shown(interlock: CommandLine, api: GatewayApi) -> None:
    task = {"task_id": "t_1", "agent": "sales", "created": FACT["created"], "texts": [{"speaker": "person", "text": "hello"}]}
    api.on("GET /api/memory/contexts/c-1", {"items": [task], "next": None})
    shown = interlock("memory", "context", "c-1").out
    assert "person" in shown and "hello" in shown
