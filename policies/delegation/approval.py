"""An approval: one act that people allowed, or did not, exactly as they were shown it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import rfc8785
from msgspec import Struct
from msgspec.structs import replace

from policies.delegation.rulings import Act

APPROVABLE_ACTIONS = frozenset({"callTool", "getPrompt", "readResource", "invokeAgent"})  # acts that can be shown exactly
SHOWN_MAX = 65_536  # characters of arguments: more than that nobody reads
NEVER_EXPIRES_US = 1 << 62  # microseconds
DECIDE_APPROVALS = Act("decideApproval", "Key", "approvals", "approval:decide", "approvals")
_decode = msgspec.json.Decoder(Any).decode


class NotShowable(Exception):
    """Arguments that can't be shown, or have no canonical form; so nobody can approve of them."""


class ExactContent(Struct, frozen=True):
    """What is approved, to the letter: the arguments as JSON, and hashes of their and the definition's canonical form (RFC 8785).

    `beside`: all else that is sent along with the arguments, as JSON; empty where there is nothing. The hash covers it.
    """

    arguments: str
    arguments_hash: str
    definition: str
    other_members: str = ""


def exact_content_of(arguments: Mapping[str, Any], definition: str, other_members: Mapping[str, Any] | None = None) -> ExactContent:
    """Raises NotShowable."""
    try:
        canonical = rfc8785.dumps(dict(arguments))
        more = rfc8785.dumps(dict(other_members)) if other_members else b""
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise NotShowable from error
    text, rest = canonical.decode(), more.decode()
    if len(text) + len(rest) > SHOWN_MAX:
        raise NotShowable
    whole = b"\n".join((canonical, more)) if more else canonical  # which no arguments alone come to: a canonical form has one line
    return ExactContent(text, hashlib.sha256(whole).hexdigest(), definition, rest)


class Requester(Struct, frozen=True):
    """On whose behalf, through which agents and in which errand and task something is asked for."""

    tenant: str
    owner: str  # tenant|issuer|subject
    chain: tuple[str, ...]
    txn: str
    task_id: str


class Approval(Struct, frozen=True):
    """An approval as its row tells it. `expires` in microseconds; `approvers` are owner keys."""

    id: str
    requester: Requester
    permission: str
    definition: str
    arguments_hash: str
    policies: tuple[str, ...]
    state: str  # pending | approved | denied | used | expired | void
    expires: int
    prompt: str = ""
    reason: str = ""
    approvals_needed: int = 1
    approvers: tuple[str, ...] = ()
    used_by: str = ""  # the decision

    def mismatch_reason(
        self, requester: Requester, permission: str, content: ExactContent, now: int, continues_decision_id: str = ""
    ) -> str:
        """Why this is no approval of that act, as a reason_id; empty when it is about that very act, however it was decided.

        `begun`: the decision that the act goes on from, which may be the one that used it.
        """
        mine = self.requester
        if (mine.tenant, mine.owner) != (requester.tenant, requester.owner):
            return "approval-unknown"
        if self.permission != permission:
            return "approval-other-act"
        if mine.chain != requester.chain:
            return "approval-other-chain"
        if mine.task_id != requester.task_id or (not mine.task_id and mine.txn != requester.txn):  # no task is of two errands
            return "approval-other-task"
        if self.arguments_hash != content.arguments_hash:
            return "approval-other-arguments"
        if self.definition != content.definition:
            return "approval-other-definition"
        if self.state == "used" and (not continues_decision_id or self.used_by != continues_decision_id):
            return "approval-used"
        return "approval-expired" if self.state in ("expired", "void") or self.expires <= now else ""

    def for_follow_up(self) -> "Approval":
        """The same for whoever asks about what was begun by it: nothing is begun once more, so it is not used again, nor too old."""
        return replace(self, id="", expires=NEVER_EXPIRES_US)


def description_of(definition: Mapping[str, Any]) -> str:
    """What a definition says of itself, for those who decide."""
    said = definition.get("description", "")
    return said[:4000] if isinstance(said, str) else ""


def decode_arguments(arguments: str) -> Any:
    """Arguments as they were asked for; None once they are of no use any more."""
    return _decode(arguments) if arguments else None
