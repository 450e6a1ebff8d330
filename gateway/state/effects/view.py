"""One view of a subject: what agents did, do and plan to do, what holds and claims it, and which conflicts were refused."""

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, and_, exists, select

from gateway.state.claims.claim import Claim, Holder
from gateway.state.claims.rows import read_open_claims
from gateway.state.effects.facts import BoardFacts
from gateway.state.effects.tables import subject_conflicts, subject_effects
from gateway.state.subjects.clock import SubjectClock
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.tasks.log import to_rfc3339
from policies.delegation.facts import FactNote, FactSource

SHOWN_MAX: Final = 100
OPEN_DAYS: Final = 30  # for which a refused conflict counts as open
DAY: Final = 86_400_000_000
TASK_ENDINGS: Final = {"TASK_STATE_COMPLETED": "done"}


class SubjectReader(Struct, frozen=True):
    """The reader of a view: the person, whose own name is shown, and whether the names of others are shown too."""

    tenant: str
    owner: str
    sees_people: bool = False

    def name(self, owner: str) -> str | None:
        """The person (tenant|issuer|subject), as far as the reader may know; else None."""
        return owner if self.sees_people or owner == self.owner else None


class PlannedEffect(Struct, frozen=True):
    """An effect that a step has not had yet, or a claim that it has not taken. `at`: when its run goes on or begins by itself.

    `run_id` is empty for the next run of a schedule. `is_certain`: the subject is known; otherwise only that it is of this kind.
    """

    effect: str
    purpose: str
    target: str
    workflow: str
    step: str
    run_id: str = ""
    owner: str = ""
    at: int | None = None
    is_certain: bool = True


class ConflictPage(Struct, frozen=True):
    """Which conflicts a list shows: of one owner or of all, before a place (the time and id of a decision), at most `limit`."""

    owner: str = ""
    before: tuple[int, str] | None = None
    limit: int = 50


def read_subject(
    connection: Connection,
    reader: SubjectReader,
    subject: str,
    board_facts: BoardFacts,
    clock: SubjectClock,
    *,
    planned: Sequence[PlannedEffect] = (),
) -> dict[str, Any]:
    """The view as JSON. `board_facts`: what the reader may see of the board."""
    now = clock.read(connection)
    holds, opt_outs, plain = board_facts
    effects = _read_effects(connection, reader, subject, now)
    claims = [claim for claim in read_open_claims(connection, reader.tenant, subject) if claim.is_held(now) or claim.is_cooling(now)]
    conflicts = (subject_conflicts.c.tenant == reader.tenant) & (subject_conflicts.c.subject == subject)
    return {
        "subject": subject,
        "holds": [_fact(reader, name, source) for name, source in holds.items()],
        "opt_outs": [_fact(reader, name, source) for name, source in opt_outs.items()],
        "values": {name: value for name, (value, _) in plain.items()},
        "claims": [_claim(reader, claim, now) for claim in claims],
        "under_way": [each for each in effects if each["state"] == "under-way"],
        "done": [each for each in effects if each["state"] != "under-way"],
        "planned": [_planned(reader, each) for each in planned[:SHOWN_MAX]],
        "conflicts": [_conflict(reader, row) for row in _read_conflicts(connection, conflicts, SHOWN_MAX)],
    }


def list_open_conflicts(
    connection: Connection, reader: SubjectReader, page: ConflictPage, clock: SubjectClock
) -> tuple[list[dict[str, Any]], tuple[int, str] | None]:
    """Conflicts that were refused, the newest first, and the place of the next page.

    What the refused caller wanted was not done since.
    """
    columns, effects = subject_conflicts.c, subject_effects.c
    same = and_(effects.tenant == columns.tenant, effects.subject == columns.subject, effects.effect == columns.effect)
    done_since = exists().where(same, effects.owner == columns.owner, effects.agent == columns.agent, effects.at > columns.last_at)
    wanted = (columns.tenant == reader.tenant) & (columns.last_at > clock.read(connection) - OPEN_DAYS * DAY) & ~done_since
    if page.owner:
        wanted &= columns.owner == page.owner
    if page.before is not None:
        at, last = page.before
        wanted &= (columns.last_at < at) | ((columns.last_at == at) & (columns.decision_id < last))
    rows = _read_conflicts(connection, wanted, page.limit)
    following = (rows[-1].last_at, rows[-1].decision_id) if len(rows) == page.limit else None
    return [_conflict(reader, row) for row in rows], following


def _read_effects(connection: Connection, reader: SubjectReader, subject: str, now: int) -> list[dict[str, Any]]:
    """The newest effects. One that lasts as long as a task is under way until the task has ended."""
    of_task = and_(tasks.c.tenant == subject_effects.c.tenant, tasks.c.id == subject_effects.c.task_id, subject_effects.c.own_task == 1)
    query = select(subject_effects, tasks.c.state.label("task_state")).outerjoin(tasks, of_task)
    query = query.where(subject_effects.c.tenant == reader.tenant, subject_effects.c.subject == subject)
    rows = connection.execute(query.order_by(subject_effects.c.at.desc()).limit(SHOWN_MAX)).all()
    return [
        {
            "effect": row.effect,
            "purpose": row.purpose,
            "state": _state_of(row, now),
            "at": to_rfc3339(row.at),
            "target": row.target,
            "agent": row.agent,
            "chain": json.loads(row.chain),
            "owner": reader.name(row.owner),
            "task_id": row.task_id if reader.name(row.owner) else None,
            "decision_id": row.id if reader.name(row.owner) else None,
        }
        for row in rows
    ]


def _state_of(row: Any, now: int) -> str:
    if row.state != "under-way":
        return str(row.state)
    if not row.own_task:
        return "under-way" if now < row.until else "unknown"
    if row.task_state is not None and row.task_state not in ENDED_STATES:
        return "under-way"
    return TASK_ENDINGS.get(row.task_state or "", "unknown")


def _read_conflicts(connection: Connection, wanted: Any, limit: int) -> list[Any]:
    order = (subject_conflicts.c.last_at.desc(), subject_conflicts.c.decision_id.desc())
    return list(connection.execute(select(subject_conflicts).where(wanted).order_by(*order).limit(limit)))


def _conflict(reader: SubjectReader, row: Any) -> dict[str, Any]:
    is_own = reader.name(row.owner) is not None
    notes = msgspec.json.decode(row.facts, type=list[FactNote])
    return {
        "subject": row.subject,
        "effect": row.effect,
        "target": row.target,
        "agent": row.agent,
        "owner": reader.name(row.owner),
        "reason_id": row.reason_id,
        "policies": json.loads(row.policies),
        "facts": [{"kind": note.kind, "name": note.name, "until": _time_or_none(note.until)} for note in notes],
        "count": row.count,
        "first_at": to_rfc3339(row.first_at),
        "last_at": to_rfc3339(row.last_at),
        "decision_id": row.decision_id if is_own else None,
    }


def _fact(reader: SubjectReader, name: str, source: FactSource) -> dict[str, Any]:
    times = {"since": to_rfc3339(source.since), "until": _time_or_none(source.until)}
    return {"name": name, **times, "reason": source.text, "agent": source.agent, "set_by": reader.name(source.owner)}


def _claim(reader: SubjectReader, claim: Claim, now: int) -> dict[str, Any]:
    holder: Holder = claim.holder
    return {
        "effect": claim.effect,
        "purpose": claim.purpose,
        "priority": claim.priority,
        "state": "held" if claim.is_held(now) else "cooling",
        "until": to_rfc3339(claim.until if claim.is_held(now) else claim.free_at),
        "agent": holder.agent,
        "owner": reader.name(holder.owner),
    }


def _planned(reader: SubjectReader, planned: PlannedEffect) -> dict[str, Any]:
    is_known = bool(planned.owner) and reader.name(planned.owner) is not None
    return {
        "effect": planned.effect,
        "purpose": planned.purpose,
        "target": planned.target,
        "agent": planned.workflow,
        "step": planned.step,
        "run": planned.run_id if is_known else None,
        "owner": planned.owner if is_known else None,
        "at": None if planned.at is None else to_rfc3339(planned.at),
        "certain": planned.is_certain,
    }


def _time_or_none(at: int) -> str | None:
    return to_rfc3339(at) if at else None
