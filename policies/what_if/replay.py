"""Replay: rules again on recorded decisions with other policies, by what the audit log has of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from policies.cedar.engine import PolicyEngine
from policies.cedar.question import CedarQuestion, Verdict
from policies.cedar.schema import RESOURCE_KINDS
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act
from policies.what_if.acts import act_of_permission

_encode_canonical = msgspec.json.Encoder(order="sorted").encode
BY_POLICY = frozenset({"allowed", "user-lacks-permission", "policy-forbids", "policy-error"})
UNKNOWN, SAME = "unknown", "same"
DIGEST_ONLY = "it depends on the arguments, of which the audit log has only a digest"
HISTORY = "it depends on what the transaction had done by then"
FACTS = "it depends on the facts about the subject by then"
NOT_ASKED = "policies did not decide it"
OTHER_ARGUMENTS = "the arguments given are not those of this decision"


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """`ruling`: allow | deny | ask | unknown; same where policies did not decide. `note` says why it is unknown or the same."""

    ruling: str
    policies: tuple[str, ...] = ()
    note: str = ""


class Replay:
    """Rules again on audit records; `engine` has the other policies."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self._engines_by_unknown: dict[frozenset[str], tuple[PolicyEngine, PolicyEngine]] = {}

    def rule_again(self, record: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> ReplayOutcome:
        """Rules on a record of kind decision (policies/audit/log.py). `arguments` are the original ones, if known."""
        if record["reason_id"] not in BY_POLICY and not record["reason_id"].startswith("approval-"):
            return ReplayOutcome(SAME, tuple(record["policies"]), NOT_ASKED)
        if arguments is not None and record["arguments"] not in ("", hashlib.sha256(_encode_canonical(arguments)).hexdigest()):
            return ReplayOutcome(UNKNOWN, (), OTHER_ARGUMENTS)
        question = _question(record, arguments)
        blind = (
            {"history", *(("effect", "subject", "facts") if record.get("subject") else ())}
            | ({"input"} if arguments is None else set())
            | ({"task"} if question.act.action == "invokeAgent" else set())
        )
        best, worst = (engine.decide(question) for engine in self._engines_without(frozenset(blind)))
        if _ruling_name(best) == _ruling_name(worst):
            return ReplayOutcome(_ruling_name(worst), worst.policies if not worst.allowed else best.policies)
        if record.get("subject") and self._engine.reads_facts(question.act):
            return ReplayOutcome(UNKNOWN, (), FACTS)
        return ReplayOutcome(UNKNOWN, (), DIGEST_ONLY if arguments is None and self._engine.reads_input(question.act) else HISTORY)

    def _engines_without(self, unknown: frozenset[str]) -> tuple[PolicyEngine, PolicyEngine]:
        known = self._engines_by_unknown.get(unknown)
        if known is None:
            known = self._engines_by_unknown[unknown] = (
                self._engine.with_unknown(unknown, True),
                self._engine.with_unknown(unknown, False),
            )
        return known


def _ruling_name(verdict: Verdict) -> str:
    return "allow" if verdict.allowed else "ask" if verdict.needs_approval else "deny"


def _question(record: Mapping[str, Any], arguments: Mapping[str, Any] | None) -> CedarQuestion:
    person, chain = record["principal"], tuple(link["agent"] for link in record["path"])
    return CedarQuestion(
        principal=Principal(record["tenant"], person["issuer"], person["subject"], tuple(record["roles"])),
        act=_act_of_record(record),
        tenant=record["tenant"],
        scopes=tuple(record.get("scope") or ("*",)),
        chain=chain,
        depth=len(chain),
        task=record["task_id"],
        input=arguments,
    )


def _act_of_record(record: Mapping[str, Any]) -> Act:
    act = act_of_permission(record["permission"])
    if (act.action, act.resource) == (record["action"], record["resource"]):
        return act
    kind = RESOURCE_KINDS.get(act.action, ("Key",))[0]
    return Act(act.action, kind, record["resource"], act.permission, record["resource"])  # of administration, on one entry
