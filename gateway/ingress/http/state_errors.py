"""Rows of the table of errors about the board."""

from gateway.ingress.http.error_row import ErrorMapping
from gateway.state.board.problems import (
    BackingFailed,
    BadKey,
    BoardFull,
    BoardValueTooLarge,
    HeldValueDecided,
    MisfitValue,
    NotBacked,
    OwnHeldValue,
    StaleVersion,
    UnknownHeldValue,
    UnknownValue,
    VersionRequired,
)

STATE_ERRORS: dict[type[Exception], ErrorMapping] = {
    BadKey: ErrorMapping(400, -32602, "bad-key"),
    UnknownValue: ErrorMapping(404, -32011, "unknown", keeps_http_status=True),
    StaleVersion: ErrorMapping(412, -32014, "stale-version"),
    VersionRequired: ErrorMapping(428, -32014, "version-required"),
    BoardValueTooLarge: ErrorMapping(413, -32602, "value-too-large", keeps_http_status=True),
    BoardFull: ErrorMapping(409, -32012, "board-full", rpc_code_override="RESOURCE_EXHAUSTED"),
    MisfitValue: ErrorMapping(422, -32602, "value-misfit"),
    UnknownHeldValue: ErrorMapping(404, -32011, "unknown", keeps_http_status=True),
    HeldValueDecided: ErrorMapping(409, -32014, "held-value-decided"),
    OwnHeldValue: ErrorMapping(403, -32010, "held-value-own"),
    BackingFailed: ErrorMapping(502, -32015, "state-backing", is_mcp_http_200=True),
    NotBacked: ErrorMapping(422, -32602, "state-not-backed"),
}
