"""The one table from what went wrong to what each protocol says of it. Domain code knows no wire; the wire shows no stranger's text."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from adapters.a2a_client.wire.transport import NotCarried
from adapters.a2a_client.wire.v1 import BadMessage
from adapters.catalog import UnknownKind
from adapters.contract import ConsentNeeded, InvalidAnswer, UpstreamFault
from adapters.mcp_client.wire.messages import McpRefused
from adapters.upstream.targets import EgressRefused
from gateway.audit.decisions import UnknownDecision
from gateway.audit.explanations import sentence, story
from gateway.calls.authorizer import ApprovalNeeded, Refused
from gateway.calls.cancellation import NotCancelable
from gateway.calls.consent.account_connections import UnknownConnection
from gateway.calls.consent.approval_requests import TooManyQuestions
from gateway.calls.consent.approval_votes import ApprovalClosed, OwnApproval, UnknownApproval, VotedAlready
from gateway.calls.limits.limits import BudgetSpent, LimitReached, PayloadTooLarge, RateLimited, TooManyCalls
from gateway.calls.limits.open_streams import TooManyStreams
from gateway.calls.limits.slots import Overloaded
from gateway.calls.pausing import AwaitsApproval
from gateway.calls.revocation.grants import UnknownGrant
from gateway.calls.revocation.kill_switch import AmbiguousPerson, NotYourself, UnknownKill
from gateway.calls.targets.front_door import NoAgentFits
from gateway.ingress.http.asgi import BadHeader, BodyIncomplete, BodyTooLarge, ContentTypeNotSupported, HeadersTooLarge, RequestTooSlow
from gateway.ingress.http.authentication import Admission, ForeignOrigin, WrongHost
from gateway.ingress.http.error_row import PRECONDITION
from gateway.ingress.http.error_row import RPC_CODES as RPC_CODES
from gateway.ingress.http.error_row import Row as Row
from gateway.registration.requests import BadRequest, PreconditionFailed, PreconditionRequired, UrlRefused
from gateway.storage.database import NotKept, NotRead
from gateway.storage.mailbox import TooMuchKept
from gateway.storage.paging import BadCursor
from gateway.tasks.contracts.prompts import BadAnswer
from gateway.tasks.contracts.skills import ContractBroken
from gateway.tasks.conversation import ConversationWaits
from gateway.tasks.log import TaskEnded, UnknownTask, rfc3339
from gateway.tasks.reader import IdempotencyConflict
from gateway.tasks.turns.in_flight import ShuttingDown, TooManyTasks
from gateway.tasks.turns.store import EndingNotKept
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
    """Not a request of the protocol; the message says what is wrong with it."""


class UnknownMethod(Exception):
    """The protocol has no such method, or this gateway does not serve it."""


class UnknownPath(Exception):
    """No binding of the protocol has anything at this path."""


class WrongVerb(Exception):
    """The path takes other HTTP methods; `allowed` names them."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"this path takes {' and '.join(allowed)}")
        self.allowed = allowed


class UnknownTool(Exception):
    """No such tool for this caller."""


class UnknownPrompt(Exception):
    """No such prompt for this caller."""


class UnknownResource(Exception):
    """No such resource for this caller."""


class TooManyWaiting(Exception):
    """More calls of MCP servers wait for people's answers than may."""


class PushNotSupported(Exception):
    """Push notifications are asked for, which no card of ours offers."""


class UnsupportedOperation(Exception):
    """An operation of the protocol that no card of ours offers."""


class NoExtendedCard(Exception):
    """The card declares an extended one, and the agent has none."""


class ExtensionRequired(Exception):
    """The agent's card requires an extension that the caller did not ask for; `uri` names it."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"the agent requires the extension {uri[:256]}; name it in A2A-Extensions")
        self.uri = uri


class VersionNotSupported(Exception):
    """The caller asks for a version that is not served."""

    def __init__(self, supported: tuple[str, ...]) -> None:
        super().__init__(f"this version is not supported; supported: {', '.join(supported)}")
        self.supported = supported


TABLE: dict[type[Exception], Row] = {
    BadJson: Row(400, -32700, "bad-json"),
    InvalidRequest: Row(400, -32600, "invalid-request"),
    UnknownMethod: Row(404, -32601, "unknown-method", "The method is not served here.", rpc="UNIMPLEMENTED"),
    UnknownPath: Row(404, -32601, "unknown-path", "There is nothing at this path."),
    WrongVerb: Row(405, -32601, "wrong-verb"),
    BadMessage: Row(400, -32602, "bad-params"),
    BadAnswer: Row(400, -32602, "bad-answer"),
    ContractBroken: Row(400, -32602, "contract-broken"),
    BadHeader: Row(400, -32600, "bad-header", acts=True),
    BodyTooLarge: Row(413, -32600, "body-too-large", acts=True),
    BodyIncomplete: Row(400, -32600, "body-incomplete", "The connection ended before the whole body had come.", acts=True),
    HeadersTooLarge: Row(431, -32600, "headers-too-large", acts=True),
    RequestTooSlow: Row(408, -32600, "request-timeout", "The request did not come as a whole in time.", acts=True),
    ContentTypeNotSupported: Row(415, -32005, "content-type", "The body must be application/json.", a2a="CONTENT_TYPE_NOT_SUPPORTED"),
    BadPermission: Row(400, -32602, "bad-permission"),
    WrongHost: Row(421, -32600, "wrong-host", "The Host header names another host; use the gateway's public URL.", acts=True),
    ForeignOrigin: Row(403, -32600, "foreign-origin", "Requests from pages of another origin are refused.", acts=True),
    ProofRefused: Row(
        401,
        -32016,
        "unauthenticated",
        "The token is bound to a key; show a fresh proof (DPoP) that you hold it, for this request.",
        acts=True,
    ),
    TokenRefused: Row(401, -32016, "unauthenticated", "A valid bearer token for this resource is needed.", acts=True),
    UnknownName: Row(404, -32011, "unknown", "There is no such agent or server.", acts=True),
    BadRequest: Row(422, -32602, "bad-request"),
    BadSelection: Row(422, -32602, "bad-request"),
    UrlRefused: Row(400, -32602, "egress-refused"),
    BadCard: Row(422, -32602, "bad-card"),
    BadName: Row(422, -32602, "bad-name"),
    NameTaken: Row(409, -32602, "name-taken"),
    Outdated: Row(409, -32602, "outdated"),
    PreconditionFailed: Row(412, -32602, "precondition-failed", "It was changed since you last saw it; read it again."),
    PreconditionRequired: Row(
        428,
        -32602,
        "precondition-required",
        "Say what you approve: send its ETag, as GET tells it, as If-Match (interlock … approve --seen).",
    ),
    TooManyPending: Row(
        429,
        -32012,
        "too-many-pending",
        "As many of your registrations wait for an operator as may; wait for them, or remove some.",
        acts=True,
    ),
    NoAgentFits: Row(
        404,
        -32011,
        "no-agent-fits",
        "None of the agents that you may use has a skill that fits; name one, as /agents/{name}, or a skill.",
        acts=True,
    ),
    UnknownKind: Row(400, -32602, "unknown-kind"),
    UnknownTool: Row(200, -32602, "unknown", "There is no such tool."),
    UnknownPrompt: Row(200, -32602, "unknown", "There is no such prompt."),
    UnknownResource: Row(200, -32602, "unknown", "There is no such resource."),
    UnknownTask: Row(404, -32001, "unknown", "There is no such task.", a2a="TASK_NOT_FOUND"),
    UnknownPushConfig: Row(404, -32001, "unknown", "The task has no such push notification config.", a2a="TASK_NOT_FOUND"),
    TooManyPushConfigs: Row(400, -32602, "too-many-push-configs", "configs are as many as one task may have."),
    UnknownConnection: Row(404, -32011, "unknown", "There is no such connection.", acts=True),
    UnknownDelivery: Row(404, -32011, "unknown", "There is no such dead letter.", acts=True),
    UnknownDecision: Row(404, -32011, "unknown", "There is no such decision.", acts=True),
    UnknownGrant: Row(404, -32011, "unknown", "There is no such grant.", acts=True),
    UnknownKill: Row(404, -32011, "unknown", "Nothing of that name or id is stopped.", acts=True),
    NotYourself: Row(409, -32602, "not-yourself", "You could not lift it again; let another operator do it."),
    AmbiguousPerson: Row(409, -32602, "ambiguous"),
    BadCursor: Row(400, -32602, "bad-cursor"),
    NotCancelable: Row(400, -32002, "not-cancelable", "The task can't be canceled.", "TASK_NOT_CANCELABLE", PRECONDITION),
    TaskEnded: Row(400, -32004, "task-not-waiting", "The task does not wait for a message.", "UNSUPPORTED_OPERATION", PRECONDITION),
    ConversationWaits: Row(409, -32014, "conversation-waits", rpc=PRECONDITION),
    AwaitsApproval: Row(
        400, -32004, "awaits-approval", "The task waits for approval, and goes on by itself.", "UNSUPPORTED_OPERATION", PRECONDITION
    ),
    PushNotSupported: Row(
        400, -32003, "push-not-supported", "Push notifications are not offered.", "PUSH_NOTIFICATION_NOT_SUPPORTED", PRECONDITION
    ),
    UnsupportedOperation: Row(400, -32004, "unsupported-operation", "The operation is not offered.", "UNSUPPORTED_OPERATION", PRECONDITION),
    NoExtendedCard: Row(
        400, -32007, "no-extended-card", "The agent has no extended card.", "EXTENDED_AGENT_CARD_NOT_CONFIGURED", PRECONDITION
    ),
    ExtensionRequired: Row(400, -32008, "extension-required", a2a="EXTENSION_SUPPORT_REQUIRED", rpc=PRECONDITION),
    VersionNotSupported: Row(400, -32009, "version-not-supported", a2a="VERSION_NOT_SUPPORTED", rpc=PRECONDITION),
    Refused: Row(403, -32010, "denied", rides=True),
    Killed: Row(403, -32010, "killed", "An operator of the gateway has stopped this.", rides=True),
    RateLimited: Row(429, -32012, "rate-limited", acts=True),
    TooManyCalls: Row(429, -32012, "too-many-calls", acts=True),
    BudgetSpent: Row(429, -32012, "budget-spent", acts=True),
    Overloaded: Row(503, -32013, "overloaded", acts=True),
    PayloadTooLarge: Row(413, -32602, "payload-too-large", acts=True),
    ApprovalNeeded: Row(403, -32010, "approval-needed", rides=True),
    UnknownApproval: Row(404, -32011, "unknown", "There is no such approval.", acts=True),
    OwnApproval: Row(403, -32010, "approval-own", "Somebody else has to decide on what you ask for."),
    VotedAlready: Row(409, -32014, "approval-voted", "You have said what you think of it; somebody else has to."),
    ApprovalClosed: Row(409, -32014, "approval-closed", "It is decided, used or too old; look at it again."),
    TooManyQuestions: Row(429, -32012, "too-many-questions", "As many of your acts wait for people as may.", acts=True),
    TooManyTasks: Row(
        429, -32012, "too-many-tasks", "The task has caused as many tasks as may be under way; wait until some end.", acts=True
    ),
    TooManyWaiting: Row(
        429, -32012, "too-many-waiting", "As many calls wait for answers as may; answer some, or wait until they end.", acts=True
    ),
    TooMuchKept: Row(
        429, -32012, "too-much-kept", "As much waits for this session as may; read its stream, or answer what you were asked.", acts=True
    ),
    TooManyStreams: Row(429, -32012, "too-many-streams", "You have as many streams open as one person may; close some.", acts=True),
    ShuttingDown: Row(503, -32013, "shutting-down", acts=True),
    EndingNotKept: Row(503, -32013, "ending-not-kept", acts=True),
    NotRead: Row(503, -32013, "not-read", "The gateway can't read its records now; try again later.", acts=True),
    NotKept: Row(503, -32013, "not-kept", "The gateway can't keep a record now, so nothing was done; try again later.", acts=True),
    IdempotencyConflict: Row(409, -32014, "idempotency-conflict", "The Idempotency-Key was used before with another message."),
    InvalidAnswer: Row(500, -32006, "invalid-agent-response", a2a="INVALID_AGENT_RESPONSE"),
    NotReachable: Row(502, -32015, "not-reachable", "It is not reachable now; try again later.", rides=True),
    NotCarried: Row(422, -32015, "not-carried", rpc=PRECONDITION),
    UpstreamFault: Row(502, -32015, "upstream", rides=True),
    McpRefused: Row(502, -32015, "upstream", rides=True),
    EgressRefused: Row(400, -32602, "egress-refused"),
    ConsentNeeded: Row(403, -32017, "consent-needed", rpc=PRECONDITION, rides=True),
}
HIDDEN: dict[str, type[Exception]] = {"callTool": UnknownTool, "getPrompt": UnknownPrompt, "readResource": UnknownResource}
UNEXPECTED = Row(500, -32603, "internal", "Something went wrong inside the gateway; its log has the details.", acts=True)
REASONS = frozenset({row.reason for row in (*TABLE.values(), UNEXPECTED)})
TOKENS = {  # all else about a token is no business of whoever shows it; these its holder can read in it
    "expired": "The token has expired; get a fresh one.",
    "audience": "The token is for another resource than this, or for another gateway.",
    "lifetime": "The token lives longer than this gateway accepts of its issuer.",
}


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a caller may know it. `decision` is the story of a refusal; `scope` what a token lacks (HTTP 403 insufficient_scope).

    `unnamed`: no token was shown at all.
    """

    row: Row
    detail: str
    decision: dict[str, Any] | None = None
    scope: str = ""
    wanted: str = ""  # the scope to ask the token's issuer for
    approval: dict[str, Any] | None = None  # that is waited for
    retry_after: int = 0  # seconds
    unnamed: bool = False
    proof: ProofRefused | None = None  # of the key that the token is bound to
    task_id: str = ""  # of the caller's other task, which has to be answered or canceled first
    failure: str = ""  # how the call of an agent or a server failed: a value of adapters.contract.Failure

    @property
    def jsonrpc_status(self) -> int:
        """Of HTTP, for A2A in JSON-RPC."""
        return 403 if self.scope else self.row.status if self.row.acts else 200

    def mcp_status(self, initialized: bool) -> int:
        """Of HTTP, for MCP. To a client of the `initialize` era 404 would mean that its session is gone."""
        if self.scope:
            return 403
        return 200 if self.row.rides or (initialized and self.row.code in (-32601, -32602)) else self.row.status


def told(error: Exception) -> Told:
    """What may be said of `error`. A refusal to someone who may not know of the thing reads exactly like an unknown name."""
    if isinstance(error, Refused):
        return _refused(error)
    row = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), UNEXPECTED)
    if isinstance(error, ProofRefused):
        return Told(row, row.says, proof=error)
    if isinstance(error, TokenRefused):
        return Told(row, TOKENS.get(error.reason, row.says), unnamed=error.reason == "missing")
    if isinstance(error, UpstreamFault) and error.explained and error.cause:
        return Told(row, f"{row.says or error}: {error.cause}", **_upstream(error))
    if isinstance(error, UpstreamFault):
        return Told(row, row.says or str(error), **_upstream(error))
    if isinstance(error, LimitReached):
        return Told(row, str(error), retry_after=error.retry_after)
    if isinstance(error, NotReachable):
        return Told(row, row.says, retry_after=error.retry_after)
    if isinstance(error, ConversationWaits):
        return Told(row, str(error), task_id=error.task_id)
    if isinstance(error, ShuttingDown):
        return Told(row, str(error), task_id=error.task_id, retry_after=1)
    return Told(row, row.says or str(error), retry_after=1 if row.status in (429, 503) else 0)


def _upstream(fault: UpstreamFault) -> dict[str, Any]:
    return {"retry_after": ceil(fault.retry_after or 0), "failure": fault.failure or ""}


def http_headers(said: Told, admission: Admission, resource: str) -> list[tuple[bytes, bytes]]:
    """What HTTP wants beside an error: the challenge of RFC 6750 s3, or Retry-After."""
    if said.row.status == 401:
        return [(name.encode(), value.encode()) for name, value in challenges(said, admission, resource)]
    if said.scope:
        return [(b"www-authenticate", admission.challenge(resource, "insufficient_scope", said.wanted).encode())]
    return [(b"retry-after", str(said.retry_after).encode())] if said.retry_after else []


def challenges(said: Told, admission: Admission, resource: str) -> list[tuple[str, str]]:
    """What goes with 401: how to come in (RFC 6750 s3), or what was wrong with a proof (RFC 9449 s7.1 and s9)."""
    if said.proof is None:
        return [("www-authenticate", admission.challenge(resource, "" if said.unnamed else "invalid_token"))]
    challenge = [("www-authenticate", admission.challenge(resource, said.proof.error, scheme="DPoP"))]
    return [*challenge, ("dpop-nonce", said.proof.nonce)] if said.proof.nonce else challenge


def _refused(error: Refused) -> Told:
    ruling = error.ruling
    if isinstance(ruling, Denial) and ruling.hidden:
        hidden = TABLE[HIDDEN.get(ruling.decision.act.action, UnknownName)]
        return Told(hidden, hidden.says)
    if isinstance(error, ApprovalNeeded):
        return _needed(error)
    row = TABLE[Refused]
    scope, wanted = (ruling.scope, ruling.wanted) if isinstance(ruling, Denial) else ("", "")
    said = f" They said: {ruling.note}" if isinstance(ruling, Denial) and ruling.note else ""
    return Told(row, sentence(ruling.decision) + said, story(ruling.decision), scope, wanted)


def _needed(error: ApprovalNeeded) -> Told:
    pending = error.pending
    until = rfc3339(pending.expires)
    detail = f"{pending.sentence} Approval {pending.id} waits for somebody who may decide, until {until}; then do exactly the same again."
    approval = {"id": pending.id, "state": pending.state, "prompt": pending.prompt, "expires": until, "needed": pending.needed}
    return Told(TABLE[ApprovalNeeded], detail, story(error.ruling.decision), approval=approval)
