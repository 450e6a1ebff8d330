"""The facts about a subject that a ruling depends on, from what was read about it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import Connection

from gateway.state.claims.claim import Holder
from gateway.state.effects.reading import HOLDS, OPT_OUTS, VALUE_COLUMNS, VALUES_MAX, EffectCaller, FactRows
from gateway.state.subjects.names import key_prefix_of
from gateway.state.subjects.queries import run_query
from gateway.storage.tables import ENDED_STATES
from policies.delegation.facts import EffectUnderWay, FactSource, StandingClaim, SubjectEffect, SubjectFacts

TEXT_MAX: Final = 200
_VALUES: Final = f"SELECT {VALUE_COLUMNS} FROM state_values WHERE tenant = ? AND key > ? AND key < ? LIMIT {VALUES_MAX + 1}"  # noqa: S608 (our own text)
_TASK_EFFECT: Final = "SELECT subject FROM subject_effects WHERE tenant = ? AND task_id = ? AND own_task = 1 AND effect = ?"


class TooManyFacts(Exception):
    """The board has more values about the subject than can be read at once."""

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"The board has more than {VALUES_MAX} values about {subject}, so that calls on it can't be ruled on; delete some."
        )


def build_facts(rows: FactRows, caller: EffectCaller, effect: SubjectEffect, now: int) -> SubjectFacts:
    """The facts for an act with this effect at a moment, from what was read about its subject. Raises TooManyFacts."""
    if len(rows.values) > VALUES_MAX:
        raise TooManyFacts(effect.subject)
    holds, opt_outs, plain = _sort_values(rows.values, key_prefix_of(effect.subject), now)
    effects, agents = _newest(rows.last)
    scalars = {name: value for name, (value, _) in plain.items()}
    return SubjectFacts(
        version=rows.version,
        now=now,
        holds=holds,
        opt_outs=opt_outs,
        claims=tuple(_standing_claims(rows, caller, effect, now)),
        last_effects=effects,
        last_agents=agents,
        values={name: value for name, value in scalars.items() if isinstance(value, str)},
        numbers={name: value for name, value in scalars.items() if isinstance(value, int)},
        sources={name: source for name, (_, source) in plain.items()},
        under_way=tuple(_under_way(rows, caller, effect, now)),
    )


def find_effect_of_task(connection: Connection, tenant: str, task_id: str, effect: str) -> str:
    """The subject of the effect that a task has; empty where it has none."""
    return next((str(row.subject) for row in run_query(connection, _TASK_EFFECT, tenant, task_id, effect)), "")


def _newest(rows: Iterable[Sequence[Any]]) -> tuple[dict[str, FactSource], dict[str, FactSource]]:
    """The last effect of each name, and of each agent."""
    effects: dict[str, FactSource] = {}
    agents: dict[str, FactSource] = {}
    for effect, agent, owner, at in rows:
        for found, name in ((effects, effect), (agents, agent)):
            if name and (name not in found or found[name].since < at):
                found[name] = FactSource(at, owner, agent)
    return effects, agents


def _standing_claims(rows: FactRows, caller: EffectCaller, effect: SubjectEffect, now: int) -> Iterable[StandingClaim]:
    """The claims in the way of the act. One that the continued act has taken is its own, also while it cools down."""
    for claim in rows.claims:
        is_own = claim.id == rows.own_claim or (effect.continues_task and claim.holder.task_id == effect.continues_task)
        if claim.blocks(caller.holder, effect.effect, now) and not is_own:
            is_cooling = claim.is_cooling(now)
            until = claim.free_at if is_cooling else claim.until
            source = FactSource(claim.until if is_cooling else claim.created, claim.holder.owner, claim.holder.agent, until, claim.purpose)
            yield StandingClaim(claim.effect, claim.priority, is_cooling, source)


def _under_way(rows: FactRows, caller: EffectCaller, effect: SubjectEffect, now: int) -> Iterable[EffectUnderWay]:
    """What others do to the subject now. An effect of an agent lasts as long as its task."""
    for own_id, name, purpose, encoded_chain, agent, owner, task_id, own_task, txn, at, until, task_state in rows.under_way:
        chain = tuple(json.loads(encoded_chain))
        is_own = own_id == caller.continues_decision_id or (effect.continues_task and task_id == effect.continues_task)
        helps = bool(own_task) and Holder(owner, chain, task_id, txn).covers(caller.holder)
        is_open = task_state is not None and task_state not in ENDED_STATES if own_task else now < until
        if is_open and not is_own and not helps:
            source = FactSource(at, owner, agent, 0 if own_task else until, purpose)
            yield EffectUnderWay(name, purpose, chain, task_id if own_task else "", source)


PlainValues = dict[str, tuple[str | int, FactSource]]
BoardFacts = tuple[dict[str, FactSource], dict[str, FactSource], PlainValues]


def board_values(connection: Connection, tenant: str, subject: str, now: int) -> BoardFacts:
    """The holds, the opt-outs and the scalar values of a subject on the board. Raises TooManyFacts."""
    prefix = key_prefix_of(subject)
    rows = list(run_query(connection, _VALUES, tenant, prefix, f"{prefix[:-1]}0"))
    if len(rows) > VALUES_MAX:
        raise TooManyFacts(subject)
    return _sort_values(rows, prefix, now)


def _sort_values(rows: Iterable[Sequence[Any]], prefix: str, now: int) -> BoardFacts:
    """The holds, the opt-outs and the scalar values among rows of VALUE_COLUMNS."""
    holds: dict[str, FactSource] = {}
    opt_outs: dict[str, FactSource] = {}
    plain: PlainValues = {}
    for key, encoded, updated, updated_by, agent, expires, sensitivity in rows:
        if expires is not None and expires <= now:
            continue
        name, value = key[len(prefix) :], json.loads(encoded)
        source = FactSource(updated, updated_by, agent, expires or 0, sensitivity=sensitivity)
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
