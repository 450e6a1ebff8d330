"""What commands say of a workflow or a checkpoint that the gateway does not know."""

import pytest

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

UNKNOWN = {"title": "Not Found", "status": 404, "reason_id": "unknown", "detail": "There is no such agent or server."}
PLACES = {
    "run": ("POST /api/workflows/nope/runs", ()),
    "show": ("GET /api/workflows/nope", ()),
    "estimate": ("GET /api/workflows/nope/estimate", ()),
    "checkpoints": ("GET /api/workflows/nope/checkpoints", ()),
    "relax": ("POST /api/workflows/nope/relaxations", ("ask", "--every", "2")),
}


@pytest.mark.parametrize("command", list(PLACES))
def test_an_unknown_workflow_is_named_with_where_to_look(interlock: CommandLine, api: GatewayApi, command: str) -> None:
    path, arguments = PLACES[command]
    api.on(path, UNKNOWN, 404)
    ran = interlock("workflow", command, "nope", *arguments)
    assert ran.code == 1 and "There is no workflow nope." in ran.err and "interlock workflow list" in ran.err
    assert "agent" not in ran.err


def test_a_misspelt_workflow_is_told_with_the_one_that_may_be_meant(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/workflows/ofer", UNKNOWN, 404)
    api.on("GET /api/workflows", {"items": [{"name": "offer"}, {"name": "incident"}], "next": None})
    api.on("GET /api/runs?workflow=ofer", {"items": [], "next": None})
    assert "There is no workflow ofer. Did you mean offer?" in interlock("workflow", "show", "ofer").err
    assert "Did you mean offer?" in interlock("run", "list", "--workflow", "ofer").err


def test_an_unknown_checkpoint_of_a_workflow_is_not_told_as_an_unknown_workflow(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/workflows/offer/relaxations", UNKNOWN | {"detail": "The workflow has no checkpoint x; it has /do/2/ask"}, 404)
    ran = interlock("workflow", "relax", "offer", "x", "--every", "2")
    assert "it has /do/2/ask" in ran.err and "There is no workflow" not in ran.err


def test_an_unknown_run_is_looked_for_among_runs(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/runs/t_1", UNKNOWN | {"detail": "There is no such run."}, 404)
    assert "interlock run list" in interlock("run", "show", "t_1").err


def test_an_unknown_checkpoint_is_looked_for_among_checkpoints(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/checkpoints/cp_1/answer", UNKNOWN | {"detail": "There is no such checkpoint."}, 404)
    assert "interlock run checkpoints" in interlock("run", "answer", "cp_1", "true").err
