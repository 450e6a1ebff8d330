"""Rows of the table of errors about claims and subjects."""

from gateway.ingress.http.error_row import ErrorMapping
from gateway.state.claims.operations import BadClaim
from gateway.state.claims.problems import ClaimDenied, ClaimLost, CoolingDown, TooManyClaims, UnknownClaim
from gateway.state.effects.facts import TooManyFacts
from gateway.state.effects.repetitions import EffectSubjectMissing, TaskUnderWay

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
