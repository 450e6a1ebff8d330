"""What can be wrong with a request about a claim."""

from gateway.state.claims.claim import Claim


class ClaimRefused(Exception):
    """Another claim stands in the way. `claim` is the one that does so longest; `retry_after` is when it ends, in seconds."""

    def __init__(self, claim: Claim, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.claim = claim
        self.retry_after = retry_after


class ClaimDenied(ClaimRefused):
    """Another holder has the claim, with at least the same priority."""


class CoolingDown(ClaimRefused):
    """The last claim has ended, and its cool-down runs."""


class ClaimLost(Exception):
    """The holder no longer has the claim, and its token is stale: it was released, has expired or was pre-empted, as the message says."""


class UnknownClaim(Exception):
    """The holder has no such claim."""


class TooManyClaims(Exception):
    """The owner holds as many claims as allowed."""
