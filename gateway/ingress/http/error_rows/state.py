"""Rows of the table of errors about the board, claims, effects on subjects, memory, and values that no row holds."""

from gateway.ingress.http.error_rows.row import ErrorMapping
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
from gateway.state.claims.operations import BadClaim
from gateway.state.claims.problems import ClaimDenied, ClaimLost, CoolingDown, TooManyClaims, UnknownClaim
from gateway.state.effects.facts import TooManyFacts
from gateway.state.effects.repetitions import EffectSubjectMissing, TaskUnderWay
from gateway.state.memory.contexts import UnknownContext
from gateway.state.memory.facts import BadFact, FactChanged, MemoryFull, UnknownFact, WrittenByPerson
from gateway.state.memory.quarantine import UnknownQuarantine
from gateway.storage.database import UnstorableValue


class UnknownSignIn(Exception):
    """The person has not signed in with such a session, or it has ended."""


class SignInNotRenewed(Exception):
    """The identity provider can't be asked now whether a person who signed in still has their roles."""


STATE_ERRORS: dict[type[Exception], ErrorMapping] = {
    BadKey: ErrorMapping(400, -32602, "bad-key"),
    UnknownValue: ErrorMapping(404, -32011, "unknown", keeps_http_status=True),
    StaleVersion: ErrorMapping(412, -32014, "stale-version"),
    VersionRequired: ErrorMapping(428, -32014, "version-required"),
    BoardValueTooLarge: ErrorMapping(413, -32602, "value-too-large", keeps_http_status=True),
    BoardFull: ErrorMapping(409, -32012, "board-full", rpc_code_override="RESOURCE_EXHAUSTED"),
    MisfitValue: ErrorMapping(422, -32602, "value-misfit"),
    UnknownSignIn: ErrorMapping(404, -32011, "unknown", "There is no such session.", keeps_http_status=True),
    SignInNotRenewed: ErrorMapping(
        503,
        -32013,
        "sign-in-not-renewed",
        "The identity provider can't be asked now whether you still have your roles; try again later.",
        keeps_http_status=True,
    ),
    UnknownHeldValue: ErrorMapping(404, -32011, "unknown", keeps_http_status=True),
    HeldValueDecided: ErrorMapping(409, -32014, "held-value-decided"),
    OwnHeldValue: ErrorMapping(403, -32010, "held-value-own"),
    BackingFailed: ErrorMapping(502, -32015, "state-backing", is_mcp_http_200=True),
    NotBacked: ErrorMapping(422, -32602, "state-not-backed"),
    BadFact: ErrorMapping(422, -32602, "bad-request"),
    UnknownFact: ErrorMapping(404, -32011, "unknown", "There is no such fact.", keeps_http_status=True),
    UnknownContext: ErrorMapping(404, -32011, "unknown", "There is no such context.", keeps_http_status=True),
    UnknownQuarantine: ErrorMapping(404, -32011, "unknown", "The facts of this agent are not quarantined.", keeps_http_status=True),
    FactChanged: ErrorMapping(412, -32014, "fact-changed", "The fact was corrected since you read it; read it again."),
    MemoryFull: ErrorMapping(409, -32014, "memory-full"),
    UnstorableValue: ErrorMapping(
        400,
        -32602,
        "unstorable-value",
        "A text of the request has a NUL character or half of a character, or a number has more than 64 bits; send it without.",
    ),
    WrittenByPerson: ErrorMapping(403, -32010, "written-by-person"),
}
CLAIM_ERRORS: dict[type[Exception], ErrorMapping] = {
    BadClaim: ErrorMapping(422, -32602, "bad-request"),
    ClaimDenied: ErrorMapping(409, -32014, "claim-denied"),
    CoolingDown: ErrorMapping(409, -32014, "cool-down"),
    ClaimLost: ErrorMapping(409, -32014, "claim-lost"),
    UnknownClaim: ErrorMapping(404, -32011, "unknown", "There is no such claim.", keeps_http_status=True),
    TooManyClaims: ErrorMapping(
        429, -32012, "too-many-claims", "You hold the maximum number of claims; release some.", keeps_http_status=True
    ),
    EffectSubjectMissing: ErrorMapping(400, -32602, "effect-subject"),
    TooManyFacts: ErrorMapping(409, -32014, "too-many-facts"),
    TaskUnderWay: ErrorMapping(409, -32014, "under-way", "The same work is under way in another task of yours."),
}
