"""What the command line advises after an error of the gateway."""

import pytest

from gateway.cli.http_client import error_for_document


@pytest.mark.parametrize(
    ("detail", "command"),
    [
        ("No value of this id is held back.", "interlock state held"),
        ("There is no such claim.", "interlock claim list"),
        ("There is no such context.", "interlock task show"),
        ("The facts of this agent are not quarantined.", "interlock memory quarantines"),
        ("There is no such fact.", "interlock memory list"),
    ],
)
def test_an_unknown_thing_is_looked_up_where_such_things_are_listed(detail: str, command: str) -> None:
    assert error_for_document({"detail": detail, "reason_id": "unknown"}, 404).todo.startswith(command)


def test_a_task_that_is_under_way_is_watched_and_not_sent_again() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SHUTTING_DOWN", "metadata": {"taskId": "t_1"}}]
    stop = error_for_document({"error": {"code": -32013, "message": "This process is shutting down", "data": details}}, 503)
    assert stop.todo == "interlock task watch t_1"


def test_a_busy_gateway_is_tried_again() -> None:
    assert "try again" in error_for_document({"detail": "too many calls", "reason_id": "overloaded"}, 503).todo
