"""Rows of the table of errors about workflows."""

from gateway.events.queue import UnknownLetter
from gateway.events.sources import UnknownSource
from gateway.events.standard_webhooks import SignatureRefused
from gateway.ingress.http.error_rows.row import ErrorMapping
from gateway.workflows.problems import (
    BadCheckpointAnswer,
    BadEvent,
    BadRelaxation,
    CheckpointClosed,
    DocumentRefused,
    EventConflict,
    EventReplayed,
    EventSchemaBroken,
    EventTypeNotAllowed,
    RunNotFailed,
    RunNotOpen,
    SignalNotAwaited,
    StepsChanged,
    StepUndone,
    UnknownCheckpoint,
    UnknownCheckpointStep,
    UnknownRun,
    UnknownStep,
    UnknownWorkflow,
    WorkflowHasRuns,
    WouldRepeatUnknown,
)

WORKFLOW_ERRORS: dict[type[Exception], ErrorMapping] = {
    DocumentRefused: ErrorMapping(422, -32602, "workflow-refused"),
    UnknownWorkflow: ErrorMapping(404, -32011, "unknown", "There is no such workflow.", keeps_http_status=True),
    UnknownRun: ErrorMapping(404, -32001, "unknown", "There is no such run.", a2a_reason="TASK_NOT_FOUND"),
    UnknownCheckpointStep: ErrorMapping(404, -32011, "unknown", keeps_http_status=True),
    WorkflowHasRuns: ErrorMapping(409, -32014, "workflow-has-runs"),
    UnknownCheckpoint: ErrorMapping(404, -32011, "unknown", "There is no such checkpoint.", keeps_http_status=True),
    CheckpointClosed: ErrorMapping(409, -32014, "checkpoint-closed"),
    BadCheckpointAnswer: ErrorMapping(422, -32602, "checkpoint-answer"),
    SignalNotAwaited: ErrorMapping(409, -32014, "signal-not-awaited", "The run does not wait for a signal of this name."),
    RunNotOpen: ErrorMapping(409, -32014, "run-not-open", "The run has ended, or has not begun."),
    RunNotFailed: ErrorMapping(409, -32014, "run-not-failed", "Only a run that failed or was canceled is redriven."),
    WouldRepeatUnknown: ErrorMapping(409, -32014, "run-repeats-unknown"),
    UnknownStep: ErrorMapping(422, -32602, "run-step"),
    StepUndone: ErrorMapping(409, -32014, "run-undone"),
    StepsChanged: ErrorMapping(409, -32014, "run-steps-changed"),
    BadEvent: ErrorMapping(422, -32602, "bad-event"),
    BadRelaxation: ErrorMapping(422, -32602, "checkpoint-relaxation"),
    EventConflict: ErrorMapping(409, -32014, "event-conflict"),
    EventReplayed: ErrorMapping(409, -32014, "event-replayed", "This very request was taken before. Sign a repeated one anew."),
    EventTypeNotAllowed: ErrorMapping(403, -32010, "event-type"),
    EventSchemaBroken: ErrorMapping(422, -32602, "event-schema"),
    SignatureRefused: ErrorMapping(401, -32016, "webhook-signature", keeps_http_status=True),
    UnknownSource: ErrorMapping(404, -32011, "unknown", "There is no such source of events.", keeps_http_status=True),
    UnknownLetter: ErrorMapping(404, -32011, "unknown", "There is no such dead letter.", keeps_http_status=True),
}
