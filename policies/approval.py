"""An approval: one act that people allowed, or did not, exactly as they were shown it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import rfc8785
from msgspec import Struct

from policies.grant import Act

ASKABLE = frozenset({"callTool", "getPrompt", "readResource", "invokeAgent"})  # acts that can be shown exactly
SHOWN_MAX = 65_536  # characters of arguments: more than that nobody reads
DECIDE = Act("decideApproval", "Key", "approvals", "approval:decide", "approvals")
_decode = msgspec.json.Decoder(Any).decode


class NotShowable(Exception):
    """Arguments that can't be shown, or have no canonical form; so nobody can approve of them."""


class Exact(Struct, frozen=True):
    """What is approved, to the letter: the arguments as JSON, and hashes of their and the definition's canonical form (RFC 8785)."""

    arguments: str
    arguments_hash: str
    definition: str


def exact(arguments: Mapping[str, Any], definition: str) -> Exact:
    """Raises NotShowable."""
    try:
        canonical = rfc8785.dumps(dict(arguments))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise NotShowable from error
    text = canonical.decode()
    if len(text) > SHOWN_MAX:
        raise NotShowable
    return Exact(text, hashlib.sha256(canonical).hexdigest(), definition)


class Errand(Struct, frozen=True):
    """On whose behalf, through which agents and in which errand and task something is asked for."""

    tenant: str
    owner: str  # tenant|issuer|subject
    chain: tuple[str, ...]
    txn: str
    task_id: str


class Approval(Struct, frozen=True):
    """An approval as its row tells it. `expires` in microseconds; `approvers` are owner keys."""

    id: str
    errand: Errand
    permission: str
    definition: str
    arguments_hash: str
    policies: tuple[str, ...]
    state: str  # pending | approved | denied | used | expired | void
    expires: int
    prompt: str = ""
    reason: str = ""
    needed: int = 1
    approvers: tuple[str, ...] = ()

    def unfit(self, errand: Errand, permission: str, what: Exact, now: int) -> str:
        """Why this is no approval of that act, as a reason_id; empty when it is about that very act, however it was decided."""
        mine = self.errand
        if (mine.tenant, mine.owner) != (errand.tenant, errand.owner):
            return "approval-unknown"
        if self.permission != permission:
            return "approval-other-act"
        if mine.chain != errand.chain:
            return "approval-other-chain"
        if mine.task_id != errand.task_id or (not mine.task_id and mine.txn != errand.txn):  # no task is of two errands
            return "approval-other-task"
        if self.arguments_hash != what.arguments_hash:
            return "approval-other-arguments"
        if self.definition != what.definition:
            return "approval-other-definition"
        if self.state == "used":
            return "approval-used"
        return "approval-expired" if self.state in ("expired", "void") or self.expires <= now else ""


def described(definition: Mapping[str, Any]) -> str:
    """What a definition says of itself, for those who decide."""
    said = definition.get("description", "")
    return said[:4000] if isinstance(said, str) else ""


def shown(arguments: str) -> Any:
    """Arguments as they were asked for; None once they are of no use any more."""
    return _decode(arguments) if arguments else None
