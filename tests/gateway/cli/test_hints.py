"""What the command line advises after an error of the gateway."""

from gateway.cli.http_client import error_for_document


def test_a_task_that_is_under_way_is_watched_and_not_sent_again() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SHUTTING_DOWN", "metadata": {"taskId": "t_1"}}]
    stop = error_for_document({"error": {"code": -32013, "message": "This process is shutting down", "data": details}}, 503)
    assert stop.todo == "interlock task watch t_1"


def test_a_busy_gateway_is_tried_again() -> None:
    assert "try again" in error_for_document({"detail": "too many calls", "reason_id": "overloaded"}, 503).todo
