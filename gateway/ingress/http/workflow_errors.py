"""Rows of the table of errors about workflows."""

from gateway.ingress.http.error_row import ErrorMapping
from gateway.workflows.problems import BadCheckpointAnswer, CheckpointClosed, DocumentRefused, UnknownCheckpoint

WORKFLOW_ERRORS: dict[type[Exception], ErrorMapping] = {
    DocumentRefused: ErrorMapping(422, -32602, "workflow-refused"),
    UnknownCheckpoint: ErrorMapping(404, -32011, "unknown", "There is no such checkpoint.", keeps_http_status=True),
    CheckpointClosed: ErrorMapping(409, -32014, "checkpoint-closed", "The checkpoint is answered or expired, or its run has ended."),
    BadCheckpointAnswer: ErrorMapping(422, -32602, "checkpoint-answer"),
}
