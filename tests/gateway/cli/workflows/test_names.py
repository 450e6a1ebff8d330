"""What commands say of a workflow or a checkpoint that the gateway does not know."""

import pytest

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

UNKNOWN = {"title": "Not Found", "status": 404, "reason_id": "unknown", "detail": "There is no such agent or server."}
PLACES = {"run": "POST /api/workflows/nope/runs", "show": "GET /api/workflows/nope", "estimate": "GET /api/workflows/nope/estimate"}


@pytest.mark.parametrize("command", list(PLACES))
def test_an_unknown_workflow_is_named_with_where_to_look(interlock: CommandLine, api: GatewayApi, command: str) -> None:
    api.on(PLACES[command], UNKNOWN, 404)
    ran = interlock("workflow", command, "nope")
    assert ran.code == 1 and "There is no workflow nope." in ran.err and "interlock workflow list" in ran.err
    assert "agent" not in ran.err


def test_an_unknown_checkpoint_is_looked_for_among_checkpoints(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/checkpoints/cp_1/answer", UNKNOWN | {"detail": "There is no such checkpoint."}, 404)
    assert "interlock run checkpoints" in interlock("run", "answer", "cp_1", "true").err
