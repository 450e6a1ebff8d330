"""Open questions in the terminal: who may answer, and how."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.workflows.questions import answer_shape, question_lines
from tests.fakes.gateway_api import GatewayApi
from tests.fakes.house import open_house
from tests.fakes.workflows import document
from tests.gateway.cli.conftest import CommandLine, Ran

APPROVE = "do:\n- ok: {call: gateway.approve, with: {prompt: 'May it ship?'}}\n"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_only_those_who_may_answer_are_told_how(interlock: CommandLine, tmp_path: Path, database_url: str) -> None:
    (tmp_path / "ship.yaml").write_text(document("ship", APPROVE))
    async with open_house(tmp_path / "gateway", database_url) as home:

        async def ran(user: str, *arguments: str) -> Ran:
            interlock.environment.update({"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token(user)})
            return await asyncio.to_thread(interlock, *arguments)

        await ran("admin", "workflow", "add", "ship.yaml")
        started = await ran("alice", "workflow", "run", "ship")
        assert "another person with approval:decide" in started.err and "run answer" not in started.err
        run = (await ran("alice", "run", "list", "--json")).json["items"][0]["id"]
        assert "another person with approval:decide" in (await ran("alice", "run", "show", run)).err
        assert """ '{"approved": true}'""" in (await ran("admin", "run", "show", run)).err
        answers = {user: (await ran(user, "run", "checkpoints", "--json")).json["items"][0]["may_answer"] for user in ("alice", "admin")}
        assert answers == {"alice": False, "admin": True}
        assert "you may answer" in (await ran("alice", "run", "checkpoints")).out


@pytest.mark.parametrize(("is_paused", "words"), [(True, "is paused, and goes on with: interlock run resume t_1"), (False, "goes on")])
def test_an_answer_tells_what_becomes_of_its_run(interlock: CommandLine, api: GatewayApi, is_paused: bool, words: str) -> None:
    api.on("POST /api/checkpoints/cp_1/answer", {"run": "t_1", "paused": is_paused})
    assert f"cp_1 is answered; run t_1 {words}" in interlock("run", "answer", "cp_1", "true").out


@pytest.mark.parametrize(
    ("kind", "schema", "shape"),
    [
        ("approve", {}, """'{"approved": true}'"""),
        ("choose", {"enum": ["small", "large"]}, """'"small"'"""),
        ("form", {"properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}}, """'{"sku": "…", "count": 1}'"""),
        ("form", {}, "JSON"),
    ],
)
def test_the_shape_of_an_answer_fits_its_checkpoint(kind: str, schema: dict[str, Any], shape: str) -> None:
    assert answer_shape({"kind": kind, "schema": schema}) == shape


def test_a_signal_is_given_by_a_command_of_its_own() -> None:
    asked = {"id": "cp_1", "state": "pending", "kind": "signal", "prompt": "paid", "schema": {}, "may_answer": False}
    assert list(question_lines({"id": "t_1", "checkpoints": [asked]})) == ["it waits for a signal: interlock run signal t_1 paid JSON"]
