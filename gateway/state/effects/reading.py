"""Reads what a ruling on a declared effect depends on, in one query: what loaded policies name, and what stands in the way of any act."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.state.claims.claim import Claim, Holder
from gateway.state.subjects.names import key_prefix_of
from gateway.state.subjects.versions import VERSION
from policies.delegation.facts import FactNeeds, SubjectEffect

HOLDS: Final = "holds/"
OPT_OUTS: Final = "opt-outs/"
VALUES_MAX: Final = 1000  # of one subject
VALUE_COLUMNS: Final = (
    # A value too long for a fact counts as an object, which is a hold or opt-out without an end, and no scalar.
    "key, CASE WHEN LENGTH(value) > 4096 THEN '{}' ELSE value END, updated, updated_by, agent, expires, sensitivity"
)
_CLOCKS: Final = {"sqlite": "NULL", "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"}
_ARRAYS: Final = {"sqlite": "json_array", "postgresql": "json_build_array"}
_SUBJECT, _VALUE, _LAST, _UNDER_WAY, _CLAIM, _OWN_CLAIM = range(6)  # kinds of rows
_VALUES: Final = "FROM state_values WHERE tenant = ? AND"
_OF_TASKS: Final = "(SELECT COUNT(*) FROM (SELECT 1 FROM subject_effects WHERE tenant = ? AND subject = ? AND own_task = 1 LIMIT 1) AS o)"
# The newest effect of each name, and of each agent: each step reads one entry of an index, however many effects the subject had. With `=`
# instead of both bounds, PostgreSQL may go through the index of moments, where a name that is rare comes late.
_NAMES: Final = (
    "WITH RECURSIVE names(name) AS (SELECT MIN({0}) FROM subject_effects WHERE tenant = ? AND subject = ? AND state <> 'failed' "
    "AND {0} > '' UNION ALL SELECT (SELECT MIN({0}) FROM subject_effects WHERE tenant = ? AND subject = ? AND state <> 'failed' "
    "AND {0} > names.name) FROM names WHERE names.name IS NOT NULL) SELECT name FROM names WHERE name IS NOT NULL"
)
_LAST_EFFECT: Final = (
    "SELECT {kind} AS kind, (SELECT CAST({array}(effect, agent, owner, at) AS TEXT) FROM subject_effects WHERE tenant = ? AND subject = ? "
    "AND {0} >= found.name AND {0} <= found.name AND state <> 'failed' AND id <> ? AND NOT (own_task = 1 AND (task_id = ? "
    "OR (txn = ? AND (task_id = ? OR chain IN (?, ?, ?, ?))))) ORDER BY {0} DESC, at DESC LIMIT 1) AS body FROM ({names}) AS found"
)
_EFFECTS_UNDER_WAY: Final = (
    "FROM subject_effects e LEFT JOIN tasks t ON t.tenant = e.tenant AND t.id = e.task_id AND e.own_task = 1 "
    "WHERE e.tenant = ? AND e.subject = ? AND e.state = 'under-way'"
)
_CLAIM_COLUMNS: Final = "id, effect, owner, chain, task_id, txn, purpose, priority, token, created, until, cool_down, state, decision_id"
_decode_row = msgspec.json.Decoder(list[Any]).decode


class EffectCaller(Struct, frozen=True):
    """The acting person or agent, and the decision that the act goes on with, whose effect is its own."""

    tenant: str
    holder: Holder
    continues_decision_id: str = ""


class FactRows(Struct):
    """What was read about a subject at one moment (`now`, microseconds since 1970; 0: the process has the clock)."""

    version: int = 0
    now: int = 0
    values: list[Sequence[Any]] = []  # VALUE_COLUMNS
    last: list[Sequence[Any]] = []  # effect, agent, owner, at
    under_way: list[Sequence[Any]] = []
    claims: list[Claim] = []
    own_claim: str = ""  # that the continued act has taken
    has_tasks: bool = False  # agents had effects as long as their tasks, of which a caller's own are left out


def facts_query(is_sqlite: bool, caller: EffectCaller, effect: SubjectEffect, needs: FactNeeds) -> tuple[str, tuple[Any, ...]]:
    """The query for an act with this effect, and its values. One statement sees one state of the database, the version included."""
    about, prefix = (caller.tenant, effect.subject), key_prefix_of(effect.subject)
    keys, ranges = _wanted_values(prefix, needs)
    values: list[Any] = [*about, caller.tenant, *about]
    for begin, end in ranges:
        values += (caller.tenant, begin, end)
    if keys:
        values += (caller.tenant, *keys)
    if needs.last:
        left_out = (caller.continues_decision_id, effect.continues_task or "-", *_lineage(caller.holder))
        values += (*about, *left_out, *about, *about) * 2
    values += (*about, *about)
    if caller.continues_decision_id:
        values += (caller.tenant, caller.continues_decision_id)
    dialect = "sqlite" if is_sqlite else "postgresql"
    return _statement(dialect, len(ranges), len(keys), needs.last, bool(caller.continues_decision_id)), tuple(values)


def _wanted_values(prefix: str, needs: FactNeeds) -> tuple[list[str], list[tuple[str, str]]]:
    """The keys of the board that policies read, and the ranges of keys of which they read all."""
    keys, ranges = list[str](), list[tuple[str, str]]()
    for folder, names in ((f"{prefix}{HOLDS}", needs.holds), (f"{prefix}{OPT_OUTS}", needs.opt_outs), (prefix, needs.values)):
        if names is None:
            ranges.append((folder, f"{folder[:-1]}0"))  # `0` is the character after the slash
        else:
            keys += [f"{folder}{name}" for name in sorted(names)]
    return keys, ranges


@cache
def _statement(dialect: str, ranges: int, keys: int, with_last: bool, with_own_claim: bool) -> str:
    array = _ARRAYS[dialect]

    def select(kind: int, columns: str, rest: str = "") -> str:
        return f"SELECT {kind} AS kind, CAST({array}({columns}) AS TEXT) AS body {rest}"

    parts = [select(_SUBJECT, f"{VERSION}, {_CLOCKS[dialect]}, {_OF_TASKS}")]
    bounded = f"SELECT * FROM ({select(_VALUE, VALUE_COLUMNS, f'{_VALUES} key > ? AND key < ? LIMIT {VALUES_MAX + 1}')}) AS range"  # noqa: S608 (our own text)
    parts += [f"{bounded}{number}" for number in range(ranges)]
    parts += [select(_VALUE, VALUE_COLUMNS, f"{_VALUES} key IN ({','.join('?' * keys)})")] if keys else []
    for column in ("effect", "agent") if with_last else ():
        parts.append(_LAST_EFFECT.format(column, kind=_LAST, array=array, names=_NAMES.format(column)))
    under_way = "e.id, e.effect, e.purpose, e.chain, e.agent, e.owner, e.task_id, e.own_task, e.txn, e.at, e.until, t.state"
    parts.append(select(_UNDER_WAY, under_way, _EFFECTS_UNDER_WAY))
    parts.append(select(_CLAIM, _CLAIM_COLUMNS, "FROM claims WHERE tenant = ? AND subject = ? AND state <> 'ended'"))
    parts += [select(_OWN_CLAIM, "claim_id", "FROM subject_effects WHERE tenant = ? AND id = ?")] if with_own_claim else []
    return " UNION ALL ".join(parts)


def read_rows(subject: str, rows: Sequence[Sequence[Any]]) -> FactRows:
    """What the query found."""
    found = FactRows()
    for kind, body in rows:
        if body is None:  # all effects of this name are of the caller's own chain
            continue
        row = _decode_row(body)
        if kind == _SUBJECT:
            found.version, found.now, found.has_tasks = row[0], row[1] or 0, bool(row[2])
        elif kind == _VALUE:
            found.values.append(row)
        elif kind == _LAST:
            found.last.append(row)
        elif kind == _UNDER_WAY:
            found.under_way.append(row)
        elif kind == _CLAIM:
            found.claims.append(_claim_of(subject, row))
        else:
            found.own_claim = row[0]
    return found


def _claim_of(subject: str, row: Sequence[Any]) -> Claim:
    own_id, effect, owner, chain, task_id, txn, purpose, priority, token, created, until, cool_down, state, decision_id = row
    holder = Holder(owner, tuple(json.loads(chain)), task_id, txn)
    times = {"created": created, "until": until, "cool_down": cool_down}
    return Claim(own_id, subject, effect, holder, purpose, priority, token, **times, state=state, decision_id=decision_id)


def _lineage(holder: Holder) -> tuple[str, str, str, str, str, str]:
    """The transaction, the task and the chains of the agents above the holder, whose effects it helps with. There are at most four."""
    above = [json.dumps(holder.chain[:count]) for count in range(1, len(holder.chain))]
    first, second, third, fourth = [*above, "-", "-", "-", "-"][:4]
    return holder.txn or "-", holder.task_id or "-", first, second, third, fourth
