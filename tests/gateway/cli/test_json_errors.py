"""With --json, what ends a command is one JSON object on stderr, for each command and each kind of error."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from gateway.cli.exit_codes import CommandError
from gateway.cli.http_client import GatewayClient, decode_json
from gateway.cli.main import app
from tests.fakes.gateway_api import GatewayApi
from tests.fakes.ports import nowhere
from tests.gateway.cli.conftest import CommandLine, Ran, api, interlock

__all__ = ["api", "interlock"]  # fixtures of the folder below


def error_of(ran: Ran) -> dict[str, Any]:
    assert ran.out == "" and ran.err.count("\n") == 1
    (error,) = json.loads(ran.err).values()
    assert error["exit_code"] == ran.code
    return dict(error)


def names_of_commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command that has the option --json."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from names_of_commands(command, (*before, name))
        elif any("--json" in parameter.opts for parameter in command.params):
            yield (*before, name)


COMMANDS = list(names_of_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_unknown_option_is_an_error_as_json(words: tuple[str, ...], interlock: CommandLine) -> None:
    assert len(COMMANDS) > 70
    error = error_of(interlock(*words, "--json", "--no-such-option"))
    assert (error["code"], error["exit_code"]) == ("wrong-usage", 2)
    assert "--no-such-option" in error["message"] and error["todo"]


@pytest.mark.parametrize(
    "words",
    [("nonsense", "--json"), ("--nonsense", "--json"), ("agent", "nonsense", "--json"), ("send", "--json"), ("why", "..", "--json")],
)
def test_wrong_usage_is_json_wherever_the_mistake_is(words: tuple[str, ...], interlock: CommandLine) -> None:
    assert error_of(interlock(*words))["code"] == "wrong-usage"


def test_a_gateway_that_is_away_is_not_reachable(interlock: CommandLine) -> None:
    interlock.environment["INTERLOCK_URL"] = nowhere()
    error = error_of(interlock("agent", "list", "--json"))
    assert (error["code"], error["exit_code"]) == ("not-reachable", 4)
    assert "interlock serve" in error["todo"]


def test_a_refusal_has_the_gateways_reason_and_decision(interlock: CommandLine, api: GatewayApi) -> None:
    problem = {"detail": "No.", "reason_id": "user-lacks-permission", "decision_id": "d_1", "missing": ["agent:sales (user)"]}
    api.on("DELETE /api/agents/sales", problem, 403)
    error = error_of(interlock("agent", "rm", "sales", "--json"))
    assert (error["code"], error["decision_id"], error["missing"]) == ("user-lacks-permission", "d_1", ["agent:sales (user)"])
    assert error["exit_code"] == 3 and "interlock why d_1" in error["todo"]


def test_an_unknown_name_has_the_gateways_code_or_not_found(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/agents/nobody", {"detail": "There is no such agent.", "reason_id": "unknown"}, 404)
    assert error_of(interlock("agent", "show", "nobody", "--json"))["code"] == "unknown"


def test_json_after_two_dashes_is_a_word_and_no_option(interlock: CommandLine) -> None:
    interlock.environment["INTERLOCK_URL"] = nowhere()
    ran = interlock("memory", "search", "--", "--json")
    assert ran.code == 4 and not ran.err.startswith("{")


def test_an_error_that_hides_characters_has_them_escaped(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/agents/x", {"detail": "a\u202eb\nc", "reason_id": "unknown"}, 404)
    ran = interlock("agent", "show", "x", "--json")
    assert error_of(ran)["message"] == "a\u202eb\nc" and "\u202e" not in ran.err


DEEP = b"[" * 100_000 + b"]" * 100_000


def test_an_answer_that_is_nested_too_deeply_is_an_error_in_words() -> None:
    with pytest.raises(CommandError, match="not JSON"):
        decode_json(DEEP)
    with GatewayClient("http://127.0.0.1:9", "") as remote:
        assert "HTTP 500" in str(remote.error_for_response(500, DEEP))
