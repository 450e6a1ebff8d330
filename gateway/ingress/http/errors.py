"""Maps each exception to its error in HTTP, A2A, gRPC and MCP. Domain code knows no protocol, and errors repeat no upstream text."""

from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from adapters.a2a_client.wire.transport import NotCarried
from adapters.a2a_client.wire.v1 import BadMessage
from adapters.catalog import UnknownKind
from adapters.contract import ConsentNeeded, InvalidAnswer, UpstreamFault
from adapters.mcp_client.wire.messages import McpRefused
from adapters.upstream.targets import EgressRefused
from gateway.audit.decisions import UnknownDecision
from gateway.audit.explanations import decision_document, explain_refusal
from gateway.audit.retention.terms import ArchiveUnwritable, UnknownHold
from gateway.calls.authorizer import ApprovalNeeded, CallRefused
from gateway.calls.consent.account_connections import UnknownConnection
from gateway.calls.consent.approval_requests import TooManyQuestions
from gateway.calls.consent.approval_votes import AlreadyVoted, ApprovalClosed, OwnApproval, UnknownApproval
from gateway.calls.limits.meters import BudgetSpent, LimitReached, PayloadTooLarge, RateLimited, RunBudgetSpent, TooManyCalls
from gateway.calls.limits.open_streams import TooManyStreams
from gateway.calls.limits.slots import Overloaded
from gateway.calls.revocation.grants import UnknownGrant
from gateway.calls.revocation.kill_switch import AmbiguousPerson, NotYourself, UnknownKill
from gateway.calls.targets.front_door import NoAgentFits
from gateway.calls.turns.cancellation import NotCancelable
from gateway.calls.turns.pausing import AwaitsApproval
from gateway.ingress.http.authentication import ForeignOrigin, MetricsForbidden, RequestAuthentication, WrongHost
from gateway.ingress.http.error_rows.http import HTTP_ERRORS
from gateway.ingress.http.error_rows.row import FAILED_PRECONDITION, UNEXPECTED_ERROR
from gateway.ingress.http.error_rows.row import RPC_CODES as RPC_CODES
from gateway.ingress.http.error_rows.row import ErrorMapping as ErrorMapping
from gateway.ingress.http.error_rows.state import CLAIM_ERRORS, STATE_ERRORS
from gateway.ingress.http.error_rows.workflows import WORKFLOW_ERRORS
from gateway.registration.requests import BadRequest, PreconditionFailed, PreconditionRequired, UrlRefused
from gateway.state.claims.problems import ClaimRefused
from gateway.state.memory.facts import BadFact
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.storage.mailbox import MailboxFull
from gateway.storage.paging import BadCursor
from gateway.tasks.contracts.prompts import BadPromptAnswer
from gateway.tasks.contracts.skills import ContractBroken
from gateway.tasks.conversation import ConversationWaits
from gateway.tasks.log import TaskNotWaiting, UnknownTask, to_rfc3339
from gateway.tasks.reader import IdempotencyConflict
from gateway.tasks.turns.in_flight import ShuttingDown, TooManyTasks
from gateway.tasks.turns.recorder import EndingNotWritten
from gateway.tasks.webhooks.configs import TooManyPushConfigs, UnknownPushConfig
from gateway.tasks.webhooks.outbox import UnknownDelivery
from policies.delegation.kills import Killed
from policies.delegation.permissions import BadPermission
from policies.delegation.rulings import Denial
from policies.strict_json import BadJson
from policies.tokens.dpop import ProofRefused
from policies.tokens.verifier import TokenRefused
from registry.cards.card import BadCard
from registry.health.reachability import NotReachable as NotReachable
from registry.names import BadName
from registry.store import NameTaken, Outdated, TooManyPending, UnknownName
from registry.virtual.selection import BadSelection


class InvalidRequest(Exception):
    """The document is not a request of the protocol; the message says what is wrong with it."""


class UnknownMethod(Exception):
    """The protocol has no such method, or this gateway does not serve it."""


class UnknownPath(Exception):
    """No A2A binding serves this path."""


class HttpMethodNotAllowed(Exception):
    """The path accepts other HTTP methods; `allowed` names them."""

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(f"this path takes {' and '.join(allowed) or 'other HTTP methods'}")
        self.allowed = allowed


class UnknownTool(Exception):
    """The caller may use no tool of this name."""


class UnknownPrompt(Exception):
    """The caller may use no prompt of this name."""


class UnknownResource(Exception):
    """The caller may read no resource at this URI."""


class TooManyWaiting(Exception):
    """The caller, or the gateway as a whole, has the maximum number of MCP calls waiting for answers of people."""


class PushNotSupported(Exception):
    """A request asks for push notifications, which no card of the gateway offers."""


class UnsupportedOperation(Exception):
    """A request names an operation of the protocol that no card of the gateway offers."""


class NoExtendedCard(Exception):
    """The card declares an extended card, and the agent has none."""


class ExtensionRequired(Exception):
    """The agent's card requires an extension that the request does not name in A2A-Extensions; `uri` is that extension."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"the agent requires the extension {uri[:256]}; name it in A2A-Extensions")
        self.uri = uri


class VersionNotSupported(Exception):
    """The request names a protocol version that the gateway does not serve."""

    def __init__(self, supported: tuple[str, ...]) -> None:
        super().__init__(f"this version is not supported; supported: {', '.join(supported)}")
        self.supported = supported


ERROR_MAPPINGS: dict[type[Exception], ErrorMapping] = {
    **HTTP_ERRORS,
    **CLAIM_ERRORS,
    **WORKFLOW_ERRORS,
    **STATE_ERRORS,
    BadJson: ErrorMapping(400, -32700, "bad-json"),
    InvalidRequest: ErrorMapping(400, -32600, "invalid-request"),
    UnknownMethod: ErrorMapping(404, -32601, "unknown-method", "The method is not served here.", rpc_code_override="UNIMPLEMENTED"),
    UnknownPath: ErrorMapping(404, -32601, "unknown-path", "There is nothing at this path; /docs lists the paths, /console has pages."),
    HttpMethodNotAllowed: ErrorMapping(405, -32601, "wrong-verb"),
    BadMessage: ErrorMapping(400, -32602, "bad-params"),
    BadPromptAnswer: ErrorMapping(400, -32602, "bad-answer"),
    ContractBroken: ErrorMapping(400, -32602, "contract-broken"),
    BadPermission: ErrorMapping(400, -32602, "bad-permission"),
    WrongHost: ErrorMapping(
        421, -32600, "wrong-host", "The Host header names another host; use the gateway's public URL.", keeps_http_status=True
    ),
    ForeignOrigin: ErrorMapping(
        403,
        -32600,
        "foreign-origin",
        "Pages of another origin may not call the gateway; server.cors_origins names origins whose pages may call A2A and MCP.",
        keeps_http_status=True,
    ),
    ProofRefused: ErrorMapping(
        401, -32016, "unauthenticated", "The token is bound to a key; send a fresh DPoP proof of it.", keeps_http_status=True
    ),
    TokenRefused: ErrorMapping(401, -32016, "unauthenticated", "A valid bearer token for this resource is needed.", keeps_http_status=True),
    UnknownName: ErrorMapping(404, -32011, "unknown", "There is no such agent or server.", keeps_http_status=True),
    BadRequest: ErrorMapping(422, -32602, "bad-request"),
    BadSelection: ErrorMapping(422, -32602, "bad-request"),
    UrlRefused: ErrorMapping(400, -32602, "egress-refused"),
    BadCard: ErrorMapping(422, -32602, "bad-card"),
    BadName: ErrorMapping(422, -32602, "bad-name"),
    NameTaken: ErrorMapping(409, -32602, "name-taken"),
    Outdated: ErrorMapping(409, -32602, "outdated"),
    PreconditionFailed: ErrorMapping(412, -32602, "precondition-failed", "The entry was changed since you read it; read it again."),
    PreconditionRequired: ErrorMapping(
        428,
        -32602,
        "precondition-required",
        "An approval names what it approves: send the ETag that GET returns as If-Match (interlock … approve --seen).",
    ),
    TooManyPending: ErrorMapping(
        429,
        -32012,
        "too-many-pending",
        "You have the maximum number of registrations waiting for an operator; wait for them, or remove some.",
        keeps_http_status=True,
    ),
    NoAgentFits: ErrorMapping(
        404,
        -32011,
        "no-agent-fits",
        "No agent that you may use has a skill that fits; name an agent (/agents/{name}) or a skill.",
        keeps_http_status=True,
    ),
    UnknownKind: ErrorMapping(400, -32602, "unknown-kind"),
    UnknownTool: ErrorMapping(200, -32602, "unknown", "There is no such tool."),
    UnknownPrompt: ErrorMapping(200, -32602, "unknown", "There is no such prompt."),
    UnknownResource: ErrorMapping(200, -32602, "unknown", "There is no such resource."),
    UnknownTask: ErrorMapping(404, -32001, "unknown", "There is no such task.", a2a_reason="TASK_NOT_FOUND"),
    UnknownPushConfig: ErrorMapping(404, -32001, "unknown", "The task has no such push notification config.", a2a_reason="TASK_NOT_FOUND"),
    TooManyPushConfigs: ErrorMapping(400, -32602, "too-many-push-configs", "The task has the maximum number of push configs; delete one."),
    UnknownConnection: ErrorMapping(404, -32011, "unknown", "There is no such connection.", keeps_http_status=True),
    UnknownDelivery: ErrorMapping(404, -32011, "unknown", "There is no such dead letter.", keeps_http_status=True),
    UnknownDecision: ErrorMapping(404, -32011, "unknown", "There is no such decision.", keeps_http_status=True),
    UnknownGrant: ErrorMapping(404, -32011, "unknown", "There is no such grant.", keeps_http_status=True),
    UnknownHold: ErrorMapping(404, -32011, "unknown", "No hold in force has that id.", keeps_http_status=True),
    ArchiveUnwritable: ErrorMapping(503, -32013, "archive-unwritable", keeps_http_status=True),
    UnknownKill: ErrorMapping(404, -32011, "unknown", "No active kill has that name or id.", keeps_http_status=True),
    NotYourself: ErrorMapping(409, -32602, "not-yourself", "You could not lift this kill; ask another operator."),
    AmbiguousPerson: ErrorMapping(409, -32602, "ambiguous"),
    BadCursor: ErrorMapping(400, -32602, "bad-cursor"),
    NotCancelable: ErrorMapping(400, -32002, "not-cancelable", "The task can't be canceled.", "TASK_NOT_CANCELABLE", FAILED_PRECONDITION),
    TaskNotWaiting: ErrorMapping(
        400, -32004, "task-not-waiting", "The task does not wait for a message.", "UNSUPPORTED_OPERATION", FAILED_PRECONDITION
    ),
    ConversationWaits: ErrorMapping(409, -32014, "conversation-waits", rpc_code_override=FAILED_PRECONDITION),
    AwaitsApproval: ErrorMapping(
        400, -32004, "awaits-approval", "The task waits for approval, not for a message.", "UNSUPPORTED_OPERATION", FAILED_PRECONDITION
    ),
    PushNotSupported: ErrorMapping(
        400, -32003, "push-not-supported", "Push notifications are not offered.", "PUSH_NOTIFICATION_NOT_SUPPORTED", FAILED_PRECONDITION
    ),
    UnsupportedOperation: ErrorMapping(
        400, -32004, "unsupported-operation", "The operation is not offered.", "UNSUPPORTED_OPERATION", FAILED_PRECONDITION
    ),
    NoExtendedCard: ErrorMapping(
        400, -32007, "no-extended-card", "The agent has no extended card.", "EXTENDED_AGENT_CARD_NOT_CONFIGURED", FAILED_PRECONDITION
    ),
    ExtensionRequired: ErrorMapping(
        400, -32008, "extension-required", a2a_reason="EXTENSION_SUPPORT_REQUIRED", rpc_code_override=FAILED_PRECONDITION
    ),
    VersionNotSupported: ErrorMapping(
        400, -32009, "version-not-supported", a2a_reason="VERSION_NOT_SUPPORTED", rpc_code_override=FAILED_PRECONDITION
    ),
    CallRefused: ErrorMapping(403, -32010, "denied", is_mcp_http_200=True),
    MetricsForbidden: ErrorMapping(403, -32010, "denied"),
    Killed: ErrorMapping(403, -32010, "killed", "An operator of the gateway has stopped this.", is_mcp_http_200=True),
    RateLimited: ErrorMapping(429, -32012, "rate-limited", keeps_http_status=True),
    TooManyCalls: ErrorMapping(429, -32012, "too-many-calls", keeps_http_status=True),
    BudgetSpent: ErrorMapping(429, -32012, "budget-spent", keeps_http_status=True),
    RunBudgetSpent: ErrorMapping(429, -32012, "run-budget-spent", keeps_http_status=True),
    Overloaded: ErrorMapping(503, -32013, "overloaded", keeps_http_status=True),
    PayloadTooLarge: ErrorMapping(413, -32602, "payload-too-large", keeps_http_status=True),
    ApprovalNeeded: ErrorMapping(403, -32010, "approval-needed", is_mcp_http_200=True),
    UnknownApproval: ErrorMapping(404, -32011, "unknown", "There is no such approval.", keeps_http_status=True),
    OwnApproval: ErrorMapping(403, -32010, "approval-own", "The requester of an act can't approve it; another approver must."),
    AlreadyVoted: ErrorMapping(409, -32014, "approval-voted", "You have already voted on this approval; another approver must."),
    ApprovalClosed: ErrorMapping(409, -32014, "approval-closed", "The approval is decided, used or expired; read it again."),
    TooManyQuestions: ErrorMapping(
        429,
        -32012,
        "too-many-questions",
        "You have too many acts waiting for approval; wait until some are decided.",
        keeps_http_status=True,
    ),
    TooManyTasks: ErrorMapping(
        429, -32012, "too-many-tasks", "The task has too many tasks in flight; wait until some end.", keeps_http_status=True
    ),
    TooManyWaiting: ErrorMapping(
        429,
        -32012,
        "too-many-waiting",
        "The maximum number of calls wait for answers; answer some, or wait until they end.",
        keeps_http_status=True,
    ),
    MailboxFull: ErrorMapping(
        429,
        -32012,
        "too-much-kept",
        "The queue of this session is full; read its stream, or answer the server's requests.",
        keeps_http_status=True,
    ),
    TooManyStreams: ErrorMapping(
        429, -32012, "too-many-streams", "You have the maximum number of streams open; close some.", keeps_http_status=True
    ),
    ShuttingDown: ErrorMapping(503, -32013, "shutting-down", keeps_http_status=True),
    EndingNotWritten: ErrorMapping(503, -32013, "ending-not-kept", keeps_http_status=True),
    ReadFailed: ErrorMapping(503, -32013, "not-read", "The gateway can't read its records now; try again later.", keeps_http_status=True),
    WriteFailed: ErrorMapping(
        503, -32013, "not-kept", "The gateway can't write its records now, so nothing was done; try again later.", keeps_http_status=True
    ),
    IdempotencyConflict: ErrorMapping(409, -32014, "idempotency-conflict", "The Idempotency-Key was used before with another message."),
    InvalidAnswer: ErrorMapping(500, -32006, "invalid-agent-response", a2a_reason="INVALID_AGENT_RESPONSE"),
    NotReachable: ErrorMapping(502, -32015, "not-reachable", is_mcp_http_200=True),
    NotCarried: ErrorMapping(422, -32015, "not-carried", rpc_code_override=FAILED_PRECONDITION),
    UpstreamFault: ErrorMapping(502, -32015, "upstream", is_mcp_http_200=True),
    McpRefused: ErrorMapping(502, -32015, "upstream", is_mcp_http_200=True),
    EgressRefused: ErrorMapping(400, -32602, "egress-refused"),
    ConsentNeeded: ErrorMapping(403, -32017, "consent-needed", rpc_code_override=FAILED_PRECONDITION, is_mcp_http_200=True),
}
# each has the `field` that is wrong, and its `problem`
FIELD_ERRORS: Final = (BadMessage, BadRequest, BadFact, BadSelection, BadCard, PayloadTooLarge)
UNKNOWN_BY_ACTION: dict[str, type[Exception]] = {"callTool": UnknownTool, "getPrompt": UnknownPrompt, "readResource": UnknownResource}
_ROWS = (*ERROR_MAPPINGS.values(), UNEXPECTED_ERROR)
REASON_IDS = frozenset(row.reason_id for row in _ROWS)
FAULT_IDS = frozenset(row.reason_id for row in _ROWS if row.status >= 500)  # no caller's mistake
TOKEN_TEXTS = {  # the only reasons a caller learns: its holder can read these claims in the token
    "expired": "The token has expired; get a fresh one.",
    "audience": "The token is for another resource than this, or for another gateway.",
    "lifetime": "The token lives longer than this gateway accepts of its issuer.",
}


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as the gateway reports it to a caller.

    `decision` is the document of a refusal (`decision_document`). `missing_permission` makes the error 403 insufficient_scope (RFC 6750
    s3.1). `is_token_missing`: the request has no token at all.
    """

    mapping: ErrorMapping
    detail: str
    decision: dict[str, Any] | None = None
    missing_permission: str = ""
    scope_to_request: str = ""  # the scope to ask the token's issuer for
    approval: dict[str, Any] | None = None  # the pending approval of an ApprovalNeeded
    retry_after: int = 0  # seconds
    is_token_missing: bool = False
    proof_refusal: ProofRefused | None = None  # why the DPoP proof was refused
    task_id: str = ""  # the caller's other task, which must be answered or canceled first
    field: str = ""  # path of the member that is wrong, such as message.parts[0].url
    problem: str = ""  # what is wrong with that member
    failure: str = ""  # how the call of an agent or a server failed: a value of adapters.contract.Failure

    @property
    def jsonrpc_status(self) -> int:
        """The HTTP status of an A2A answer over JSON-RPC."""
        return 403 if self.missing_permission else self.mapping.status if self.mapping.keeps_http_status else 200

    def mcp_status(self, is_initialize_era: bool) -> int:
        """Returns the HTTP status for MCP. To a client of the legacy era 404 would mean that its session is gone."""
        if self.missing_permission:
            return 403
        return (
            200
            if self.mapping.is_mcp_http_200 or (is_initialize_era and self.mapping.jsonrpc_code in (-32601, -32602))
            else self.mapping.status
        )


def describe(error: Exception) -> ErrorReport:
    """Returns what a caller may know of `error`. A hidden refusal is reported exactly like an unknown name."""
    if isinstance(error, CallRefused):
        return _describe_refusal(error)
    row = next((ERROR_MAPPINGS[kind] for kind in type(error).__mro__ if kind in ERROR_MAPPINGS), UNEXPECTED_ERROR)
    if isinstance(error, ProofRefused):
        return ErrorReport(row, row.public_text, proof_refusal=error)
    if isinstance(error, TokenRefused):
        return ErrorReport(row, TOKEN_TEXTS.get(error.reason, row.public_text), is_token_missing=error.reason == "missing")
    if isinstance(error, UpstreamFault):
        cause = f": {error.cause}" if error.shows_cause and error.cause else ""
        retry_after, failure = ceil(error.retry_after or 0), error.failure or ""
        return ErrorReport(row, f"{row.public_text or error}{cause}", retry_after=retry_after, failure=failure)
    if isinstance(error, FIELD_ERRORS):
        return ErrorReport(row, row.public_text or str(error), field=error.field, problem=error.problem)
    if isinstance(error, LimitReached | NotReachable | ClaimRefused):
        return ErrorReport(row, row.public_text or str(error), retry_after=error.retry_after)
    if isinstance(error, ConversationWaits):
        return ErrorReport(row, str(error), task_id=error.task_id)
    if isinstance(error, ShuttingDown):
        return ErrorReport(row, str(error), task_id=error.task_id, retry_after=1)
    return ErrorReport(row, row.public_text or str(error), retry_after=1 if row.status in (429, 503) else 0)


def error_headers(report: ErrorReport, authentication: RequestAuthentication, resource: str) -> list[tuple[bytes, bytes]]:
    """Returns the HTTP headers of an error: the challenge of RFC 6750 s3, or Retry-After."""
    if report.mapping.status == 401:
        return [(name.encode(), value.encode()) for name, value in challenge_headers(report, authentication, resource)]
    if report.missing_permission:
        return [(b"www-authenticate", authentication.challenge(resource, "insufficient_scope", report.scope_to_request).encode())]
    return [(b"retry-after", str(report.retry_after).encode())] if report.retry_after else []


def challenge_headers(report: ErrorReport, authentication: RequestAuthentication, resource: str) -> list[tuple[str, str]]:
    """Returns the headers of a 401: how to authenticate (RFC 6750 s3), or why a proof was refused (RFC 9449 s7.1 and s9)."""
    if report.proof_refusal is None:
        return [("www-authenticate", authentication.challenge(resource, "" if report.is_token_missing else "invalid_token"))]
    challenge = [("www-authenticate", authentication.challenge(resource, report.proof_refusal.error, scheme="DPoP"))]
    return [*challenge, ("dpop-nonce", report.proof_refusal.nonce)] if report.proof_refusal.nonce else challenge


def _describe_refusal(error: CallRefused) -> ErrorReport:
    ruling = error.ruling
    if isinstance(ruling, Denial) and ruling.is_hidden:
        hidden = ERROR_MAPPINGS[UNKNOWN_BY_ACTION.get(ruling.decision.act.action, UnknownName)]
        return ErrorReport(hidden, hidden.public_text)
    if isinstance(error, ApprovalNeeded):
        return _describe_approval_needed(error)
    row = ERROR_MAPPINGS[CallRefused]
    scope, wanted = (ruling.missing_permission, ruling.scope_to_request) if isinstance(ruling, Denial) else ("", "")
    approver_note = f" The approver wrote: {ruling.note}" if isinstance(ruling, Denial) and ruling.note else ""
    return ErrorReport(row, explain_refusal(ruling.decision) + approver_note, decision_document(ruling.decision), scope, wanted)


def _describe_approval_needed(error: ApprovalNeeded) -> ErrorReport:
    pending = error.pending
    until = to_rfc3339(pending.expires)
    waits = f"Approval {pending.id} waits for an approver until {until}; then repeat exactly the same request."
    detail = f"{pending.punctuated_prompt} {waits}"
    approval = {"id": pending.id, "state": pending.state, "prompt": pending.prompt, "expires": until, "needed": pending.approvals_needed}
    return ErrorReport(ERROR_MAPPINGS[ApprovalNeeded], detail, decision_document(error.ruling.decision), approval=approval)
