"""An approval: people's decision on one act with exactly the content that they were shown."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import rfc8785
from msgspec import Struct
from msgspec.structs import replace

from policies.delegation.rulings import Act

APPROVABLE_ACTIONS = frozenset({"callTool", "getPrompt", "readResource", "invokeAgent"})  # acts whose content can be shown exactly
SHOWN_MAX = 65_536  # characters of arguments; people would not review more
NEVER_EXPIRES_US = 1 << 62  # microseconds
DECIDE_APPROVALS = Act("decideApproval", "Key", "approvals", "approval:decide", "approvals")
_decode = msgspec.json.Decoder(Any).decode


class NotShowable(Exception):
    """Arguments that can't be shown in full or have no canonical form, so that they can't be approved."""


class ExactContent(Struct, frozen=True):
    """The exact content of an approval: the arguments as JSON, and hashes of the canonical forms (RFC 8785) of them and the definition.

    `other_members`: what is sent along with the arguments, as JSON; empty without any. `arguments_hash` covers it too.
    """

    arguments: str
    arguments_hash: str
    definition: str
    other_members: str = ""


def exact_content_of(arguments: Mapping[str, Any], definition: str, other_members: Mapping[str, Any] | None = None) -> ExactContent:
    """The exact content of an act. Raises NotShowable."""
    try:
        canonical = rfc8785.dumps(dict(arguments))
        more = rfc8785.dumps(dict(other_members)) if other_members else b""
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise NotShowable from error
    text, rest = canonical.decode(), more.decode()
    if len(text) + len(rest) > SHOWN_MAX:
        raise NotShowable
    hashed = b"\n".join((canonical, more)) if more else canonical  # a canonical form has one line, so arguments alone never equal this
    return ExactContent(text, hashlib.sha256(hashed).hexdigest(), definition, rest)


class Requester(Struct, frozen=True):
    """The owner, chain of agents, transaction and task on whose behalf an act is requested."""

    tenant: str
    owner: str  # tenant|issuer|subject
    chain: tuple[str, ...]
    txn: str
    task_id: str


class Approval(Struct, frozen=True):
    """An approval as stored. `expires` is in microseconds; `approvers` are owner keys."""

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
        """Why this approval is not valid for an act, as a reason_id; empty if it is about that act, whatever was decided.

        `continues_decision_id`: the decision that the act continues, which may be the one that used the approval.
        """
        approved_for = self.requester
        if (approved_for.tenant, approved_for.owner) != (requester.tenant, requester.owner):
            return "approval-unknown"
        if self.permission != permission:
            return "approval-other-act"
        if approved_for.chain != requester.chain:
            return "approval-other-chain"
        if approved_for.task_id != requester.task_id or (
            not approved_for.task_id and approved_for.txn != requester.txn
        ):  # a task belongs to one transaction
            return "approval-other-task"
        if self.arguments_hash != content.arguments_hash:
            return "approval-other-arguments"
        if self.definition != content.definition:
            return "approval-other-definition"
        if self.state == "used" and (not continues_decision_id or self.used_by != continues_decision_id):
            return "approval-used"
        return "approval-expired" if self.state in ("expired", "void") or self.expires <= now else ""

    def for_follow_up(self) -> "Approval":
        """A copy for acts that follow what the approval started: they start nothing new, so it is neither used again nor too old."""
        return replace(self, id="", expires=NEVER_EXPIRES_US)


def description_of(definition: Mapping[str, Any]) -> str:
    """The description in a definition, of at most 4000 characters, for approvers."""
    description = definition.get("description", "")
    return description[:4000] if isinstance(description, str) else ""


def decode_arguments(arguments: str) -> Any:
    """The stored arguments as JSON; None after they were deleted."""
    return _decode(arguments) if arguments else None
