"""The law of versions: whatever callers do, the version of a key grows by one with each change, and only fitting changes are accepted."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from gateway.state.board.counters import BoardLimits
from gateway.state.board.problems import BoardProblem
from gateway.state.board.values import NO_PRECONDITION, Precondition, ValueSource
from gateway.state.board.writes import KeyRef, NewValue, delete_value, find_value, set_value
from gateway.state.tables import state_changes, state_counters
from gateway.storage.batch import Batch
from gateway.storage.database import engine_for

SOURCE = ValueSource("t|i|ann")
LIMITS = BoardLimits(keys_max=2, bytes_max=1000, changes_per_key=1000)
KEYS = ("a/1", "a/2", "b")
CONDITIONS = st.sampled_from(("none", "current", "stale", "any", "absent"))
STEPS = st.lists(st.tuples(st.sampled_from(("set", "delete", "wait")), st.sampled_from(KEYS), CONDITIONS, st.integers(0, 3)), max_size=14)
tenants = itertools.count()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = engine_for(database_url)
    yield opened
    opened.dispose()


def condition_of(name: str, version: int) -> Precondition:
    return {
        "none": NO_PRECONDITION,
        "current": Precondition((version,)) if version else Precondition(no_value=True),
        "stale": Precondition((version + 7,)),
        "any": Precondition(any_version=True),
        "absent": Precondition(no_value=True),
    }[name]


class Model:
    """What the board should hold: the live version of each key with its end, and the last version ever given."""

    def __init__(self) -> None:
        self.live: dict[str, tuple[int, int | None]] = {}
        self.last = dict.fromkeys(KEYS, 0)
        self.changes = 0
        self.now = 1_000

    def expire(self, key: str) -> None:
        end = self.live.get(key, (0, None))[1]
        if end is not None and end <= self.now:
            self.change(key)
            del self.live[key]

    def change(self, key: str) -> int:
        self.changes += 1
        self.last[key] = (self.live[key][0] if key in self.live else self.last[key]) + 1
        return self.last[key]

    def accepts(self, kind: str, key: str, condition: str) -> bool:
        is_there = key in self.live
        fits = {"none": not is_there, "current": True, "stale": False, "any": is_there, "absent": not is_there}[condition]
        has_room = is_there or len(self.live) < LIMITS.keys_max
        return fits and (has_room if kind == "set" else is_there)


def run(engine: Engine, tenant: str, model: Model, step: tuple[str, str, str, int]) -> None:
    """Does one step on the board and in the model, and compares them."""
    kind, key, condition, ttl = step
    ref = KeyRef(tenant, key)
    if kind == "wait":
        model.now += ttl
        return
    with engine.connect() as connection:
        batch = Batch(connection)
        model.expire(key)
        asked = condition_of(condition, model.live.get(key, (0, None))[0])
        is_accepted = model.accepts(kind, key, condition)
        try:
            if kind == "set":
                end = model.now + ttl if ttl else None
                version = set_value(batch, NewValue(ref, "1", SOURCE, asked, end), model.now, LIMITS).version
            else:
                version = delete_value(batch, ref, SOURCE, asked, model.now)
        except BoardProblem:
            assert not is_accepted
        else:
            assert is_accepted and version == model.change(key)
            if kind == "set":
                model.live[key] = (version, end)
            else:
                del model.live[key]
        batch.commit()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS)
def test_versions_grow_by_one_and_nothing_else_is_accepted(engine: Engine, steps: list[tuple[str, str, str, int]]) -> None:
    """Each example has a tenant of its own in the same database."""
    tenant, model = f"t{next(tenants)}", Model()
    for step in steps:
        run(engine, tenant, model, step)
    with engine.connect() as connection:
        changes = connection.execute(select(state_changes).where(state_changes.c.tenant == tenant).order_by(state_changes.c.seq)).all()
        counters = connection.execute(select(state_counters).where(state_counters.c.tenant == tenant)).first()
        stored = {key: found.version for key in KEYS if (found := find_value(connection, KeyRef(tenant, key))) is not None}
    assert [change.seq for change in changes] == list(range(1, model.changes + 1))
    for key in KEYS:
        versions = [change.version for change in changes if change.key == key]
        assert versions == list(range(1, len(versions) + 1)) and model.last[key] == len(versions)
    assert stored == {key: version for key, (version, _) in model.live.items()}
    assert counters is None or (counters.key_count, counters.byte_count) == (len(stored), len(stored))
