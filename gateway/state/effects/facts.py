"""Reads the facts about a subject that a ruling depends on: all that its version stands for, in one read."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, Row

from gateway.state.claims.claim import Holder
from gateway.state.claims.rows import read_open_claims
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.names import key_prefix_of
from gateway.state.subjects.queries import run_query
from gateway.storage.tables import ENDED_STATES
from policies.delegation.facts import EffectUnderWay, FactSource, StandingClaim, SubjectEffect, SubjectFacts

HOLDS: Final = "holds/"
OPT_OUTS: Final = "opt-outs/"
VALUES_MAX: Final = 1000  # of one subject
TEXT_MAX: Final = 200
_VERSION: Final = "SELECT version FROM subjects WHERE tenant = ? AND subject = ?"
_VALUES: Final = (
    # A value too long for a fact counts as an object, which is a hold or opt-out without an end, and no scalar.
    "SELECT key, CASE WHEN LENGTH(value) > 4096 THEN '{}' ELSE value END AS value, updated, updated_by, agent, expires, sensitivity "
    "FROM state_values WHERE tenant = ? AND key > ? AND key < ? LIMIT 1001"
)
_LAST: Final = (
    "SELECT effect, agent, owner, MAX(at) AS at FROM subject_effects WHERE tenant = ? AND subject = ? AND state <> 'failed' AND id <> ? "
    "AND NOT (own_task = 1 AND (task_id = ? OR (txn = ? AND (task_id = ? OR chain IN (?, ?, ?, ?))))) GROUP BY effect, agent, owner"
)
_UNDER_WAY: Final = (
    "SELECT e.id, e.effect, e.purpose, e.chain, e.agent, e.owner, e.task_id, e.own_task, e.txn, e.at, e.until, t.state AS task_state "
    "FROM subject_effects e LEFT JOIN tasks t ON t.tenant = e.tenant AND t.id = e.task_id AND e.own_task = 1 "
    "WHERE e.tenant = ? AND e.subject = ? AND e.state = 'under-way'"
)
_TASK_EFFECT: Final = "SELECT subject FROM subject_effects WHERE tenant = ? AND task_id = ? AND own_task = 1 AND effect = ?"


class TooManyFacts(Exception):
    """The board has more values about the subject than rulings read."""

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"The board has more than {VALUES_MAX} values about {subject}, so that calls on it can't be ruled on; delete some."
        )


class EffectCaller(Struct, frozen=True):
    """The acting person or agent, and the decision that the act goes on with, whose effect is its own."""

    tenant: str
    holder: Holder
    continues_decision_id: str = ""


def read_facts(connection: Connection, caller: EffectCaller, effect: SubjectEffect, clock: SubjectClock) -> SubjectFacts:
    """The facts for an act with this effect. The version is read first, so that a change during the read is noticed in the commit.

    Raises TooManyFacts.
    """
    tenant, subject = caller.tenant, effect.subject
    version = next((row.version for row in run_query(connection, _VERSION, tenant, subject)), 0)
    now = clock.read(connection)
    holds, opt_outs, plain = board_values(connection, tenant, subject, now)
    last = run_query(
        connection, _LAST, tenant, subject, caller.continues_decision_id, effect.continues_task or "-", *_lineage(caller.holder)
    )
    effects, agents = _newest(last)
    scalars = {name: value for name, (value, _) in plain.items()}
    return SubjectFacts(
        version=version,
        now=now,
        holds=holds,
        opt_outs=opt_outs,
        claims=tuple(_standing_claims(connection, caller, effect, now)),
        last_effects=effects,
        last_agents=agents,
        values={name: value for name, value in scalars.items() if isinstance(value, str)},
        numbers={name: value for name, value in scalars.items() if isinstance(value, int)},
        sources={name: source for name, (_, source) in plain.items()},
        under_way=tuple(_under_way(connection, caller, effect, now)),
    )


def find_effect_of_task(connection: Connection, tenant: str, task_id: str, effect: str) -> str:
    """The subject of the effect that a task has; empty where it has none."""
    return next((str(row.subject) for row in run_query(connection, _TASK_EFFECT, tenant, task_id, effect)), "")


def _lineage(holder: Holder) -> tuple[str, str, str, str, str, str]:
    """The transaction, the task and the chains of the agents above the holder, whose effects it helps with. There are at most four."""
    above = [json.dumps(holder.chain[:count]) for count in range(1, len(holder.chain))]
    first, second, third, fourth = [*above, "-", "-", "-", "-"][:4]
    return holder.txn or "-", holder.task_id or "-", first, second, third, fourth


def _newest(rows: Iterable["Row[Any]"]) -> tuple[dict[str, FactSource], dict[str, FactSource]]:
    """The last effect of each name, and of each agent."""
    effects: dict[str, FactSource] = {}
    agents: dict[str, FactSource] = {}
    for row in rows:
        for found, name in ((effects, row.effect), (agents, row.agent)):
            if name and (name not in found or found[name].since < row.at):
                found[name] = FactSource(row.at, row.owner, row.agent)
    return effects, agents


def _standing_claims(connection: Connection, caller: EffectCaller, effect: SubjectEffect, now: int) -> Iterable[StandingClaim]:
    for claim in read_open_claims(connection, caller.tenant, effect.subject):
        if claim.blocks(caller.holder, effect.effect, now) and not (
            effect.continues_task and claim.holder.task_id == effect.continues_task
        ):
            is_cooling = claim.is_cooling(now)
            until = claim.free_at if is_cooling else claim.until
            source = FactSource(claim.until if is_cooling else claim.created, claim.holder.owner, claim.holder.agent, until, claim.purpose)
            yield StandingClaim(claim.effect, claim.priority, is_cooling, source)


def _under_way(connection: Connection, caller: EffectCaller, effect: SubjectEffect, now: int) -> Iterable[EffectUnderWay]:
    """What others do to the subject now. An effect of an agent lasts as long as its task."""
    for row in run_query(connection, _UNDER_WAY, caller.tenant, effect.subject):
        chain = tuple(json.loads(row.chain))
        is_own = row.id == caller.continues_decision_id or (effect.continues_task and row.task_id == effect.continues_task)
        holder = Holder(row.owner, chain, row.task_id, row.txn)
        helps = bool(row.own_task) and holder.covers(caller.holder)
        is_open = row.task_state is not None and row.task_state not in ENDED_STATES if row.own_task else now < row.until
        if is_open and not is_own and not helps:
            source = FactSource(row.at, row.owner, row.agent, 0 if row.own_task else row.until, row.purpose)
            yield EffectUnderWay(row.effect, row.purpose, chain, row.task_id if row.own_task else "", source)


PlainValues = dict[str, tuple[str | int, FactSource]]
BoardFacts = tuple[dict[str, FactSource], dict[str, FactSource], PlainValues]


def board_values(connection: Connection, tenant: str, subject: str, now: int) -> BoardFacts:
    """The holds, the opt-outs and the scalar values of a subject on the board. Raises TooManyFacts."""
    prefix = key_prefix_of(subject)
    rows = list(run_query(connection, _VALUES, tenant, prefix, f"{prefix[:-1]}0"))
    if len(rows) > VALUES_MAX:
        raise TooManyFacts(subject)
    holds: dict[str, FactSource] = {}
    opt_outs: dict[str, FactSource] = {}
    plain: PlainValues = {}
    for row in rows:
        if row.expires is not None and row.expires <= now:
            continue
        name, value = row.key[len(prefix) :], json.loads(row.value)
        source = FactSource(row.updated, row.updated_by, row.agent, row.expires or 0, sensitivity=row.sensitivity)
        for start, found in ((HOLDS, holds), (OPT_OUTS, opt_outs)):
            if name.startswith(start) and (standing := _standing(value, source, now)) is not None:
                found[name[len(start) :]] = standing
        if "/" not in name and isinstance(value, str | int):
            plain[name] = (_scalar_of(value), source)
    return holds, opt_outs, plain


def _scalar_of(value: str | int) -> str | int:
    """A scalar as policies see it: Cedar has 64-bit integers, so that a longer number is a text, as true and false are."""
    is_number = not isinstance(value, str | bool) and -(2**63) <= value < 2**63
    return value if is_number or isinstance(value, str) else json.dumps(value)


def _standing(value: Any, source: FactSource, now: int) -> FactSource | None:
    """The source of a hold or opt-out; None where its value is null or false, or an object whose `until` has passed."""
    if value is None or value is False:
        return None
    if not isinstance(value, Mapping):
        text = value if isinstance(value, str) else ""
        return replace(source, text=text[:TEXT_MAX])
    until = _moment_of(value.get("until"))
    if until and until <= now:
        return None
    reason = value.get("reason")
    text = reason[:TEXT_MAX] if isinstance(reason, str) else ""
    return replace(source, until=until or source.until, text=text)


def _moment_of(text: Any) -> int:
    """Microseconds since 1970 of an RFC 3339 time with its zone; 0 for anything else, which ends nothing."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return 0
    return int(moment.timestamp() * 1_000_000) if moment.tzinfo is not None else 0
