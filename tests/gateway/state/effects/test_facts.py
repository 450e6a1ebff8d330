"""Facts about subjects: rulings read what policies name, and a fact that has moved since is noticed by the commit."""

import asyncio
from types import SimpleNamespace

import pytest

from gateway.state.board.counters import BoardLimits
from gateway.state.board.values import ValueSource
from gateway.state.board.writes import KeyRef, NewValue, set_value
from gateway.state.claims.claim import ClaimRequest, Holder
from gateway.state.claims.store import SubjectClaims
from gateway.state.effects.facts import TooManyFacts
from gateway.state.effects.reading import VALUES_MAX, EffectCaller
from gateway.state.effects.states import DONE, FAILED
from gateway.state.effects.store import SubjectEffects
from gateway.state.subjects.clock import SubjectClock
from gateway.state.tables import state_values
from gateway.storage.batch import Batch
from gateway.storage.database import Database
from policies.delegation.facts import EffectMark, FactNeeds, FactsChanged, SubjectEffect, SubjectFacts
from policies.ids import new_id, now_us

ANN = EffectCaller("t", Holder("t|i|ann"))
MAIL = SubjectEffect("customer:42", "outbound-email", until=now_us() + 3_600_000_000)
NAMED = FactNeeds(frozenset({"open-escalation"}), frozenset({"outbound-email"}), frozenset({"tier"}), last=True)


@pytest.fixture
def effects(database: Database) -> SubjectEffects:
    return SubjectEffects(database, now_us)


async def put(database: Database, **values: str) -> None:
    def work(batch: Batch) -> None:
        for name, value in values.items():
            ref = KeyRef("t", f"customer/42/{name.replace('__', '/').replace('_', '-')}")
            set_value(batch, NewValue(ref, value, ValueSource("t|i|carol")), now_us(), BoardLimits())

    await database.write(work)


async def facts_of(effects: SubjectEffects, needs: FactNeeds) -> SubjectFacts:
    _, facts = await effects.read(ANN, MAIL, needs)
    assert facts is not None
    return facts


def grant(mark: EffectMark) -> SimpleNamespace:
    """What a record of a grant depends on."""
    principal = SimpleNamespace(tenant="t", owner_key="t|i|ann")
    act = SimpleNamespace(permission="tool:mail.send")
    decision = SimpleNamespace(id=new_id("d"), at=now_us(), act=act, task_id="", txn="")
    return SimpleNamespace(delegation=SimpleNamespace(principal=principal, path=()), decision=decision, effect_mark=mark)


async def record(effects: SubjectEffects, database: Database, version: int) -> SimpleNamespace:
    given = grant(EffectMark(version, MAIL))
    await database.write(lambda batch: effects.record(batch, given, given.effect_mark))  # type: ignore[arg-type]  # a grant for the store alone
    return given


async def test_a_ruling_reads_the_values_that_policies_name(effects: SubjectEffects, database: Database) -> None:
    await put(database, holds__open_escalation="true", holds__other="true", opt_outs__outbound_email="true", tier='"gold"', size="7")
    facts = await facts_of(effects, NAMED)
    assert (list(facts.holds), list(facts.opt_outs), facts.values, facts.numbers) == (
        ["open-escalation"],
        ["outbound-email"],
        {"tier": "gold"},
        {},
    )
    every = await facts_of(effects, FactNeeds(None, None, None, last=True))
    assert (sorted(every.holds), every.values, every.numbers) == (["open-escalation", "other"], {"tier": "gold"}, {"size": 7})
    assert (await facts_of(effects, FactNeeds())).holds == {}


async def test_many_values_of_a_subject_refuse_only_rulings_that_read_them(effects: SubjectEffects, database: Database) -> None:
    common = {"tenant": "t", "version": 1, "value": "1", "updated_by": "t|i|mallory", "chain": "[]", "sensitivity": 0}
    common |= dict.fromkeys(("agent", "task_id", "decision_id"), "") | {"created": 1, "updated": 1}
    rows = [{**common, "key": f"customer/42/n{number:04}"} for number in range(VALUES_MAX + 1)]
    await database.write(lambda batch: [batch.add(state_values, row) for row in rows])
    await put(database, holds__open_escalation="true")
    assert list((await facts_of(effects, NAMED)).holds) == ["open-escalation"]
    with pytest.raises(TooManyFacts):
        await facts_of(effects, FactNeeds(values=None))


async def test_an_effect_is_known_while_it_lasts_and_unless_it_failed(effects: SubjectEffects, database: Database) -> None:
    for state, under_way, last in ((None, 1, 1), (DONE, 0, 1), (FAILED, 0, 0)):
        await database.write(lambda batch: batch.run("DELETE FROM subject_effects", ()))
        given = await record(effects, database, (await facts_of(effects, NAMED)).version)
        if state is not None:
            await database.write(lambda batch, given=given, state=state: effects.end(batch, given, state))
        facts = await facts_of(effects, NAMED)
        assert (len(facts.under_way), len(facts.last_effects)) == (under_way, last), state


async def test_of_two_grants_by_the_same_facts_one_is_recorded(effects: SubjectEffects, database: Database) -> None:
    """Both at once in one batch, and for a subject without a row too."""
    for _ in range(2):
        version = (await facts_of(effects, NAMED)).version
        both = await asyncio.gather(*(record(effects, database, version) for _ in range(2)), return_exceptions=True)
        assert sorted(isinstance(each, FactsChanged) for each in both) == [False, True]
        assert (await facts_of(effects, NAMED)).version == version + 1


async def test_an_effect_by_outdated_facts_writes_nothing(effects: SubjectEffects, database: Database) -> None:
    version = (await facts_of(effects, NAMED)).version
    await put(database, holds__open_escalation="true")
    with pytest.raises(FactsChanged):
        await record(effects, database, version)
    assert (await facts_of(effects, NAMED)).under_way == ()


async def call(effects: SubjectEffects, database: Database) -> bool:
    """A whole call by facts that are known or read. Returns whether they were known."""
    known = effects.recall(ANN, MAIL, NAMED)
    facts = known or await facts_of(effects, NAMED)
    given = await record(effects, database, facts.version)
    effects.end_later(given, DONE)  # type: ignore[arg-type]  # a grant for the store alone
    await database.write(lambda batch: None)
    return known is not None


async def test_a_subject_that_rests_is_known_after_a_call_and_as_it_would_be_read(effects: SubjectEffects, database: Database) -> None:
    await put(database, holds__other="true", tier='"gold"')
    assert [await call(effects, database) for _ in range(3)] == [False, True, True]
    known = effects.recall(ANN, MAIL, NAMED)
    read = await facts_of(SubjectEffects(database, now_us), NAMED)
    assert known is not None and (known.version, known.values, known.claims) == (read.version, read.values, read.claims)
    assert abs(known.last_effects["outbound-email"].since - read.last_effects["outbound-email"].since) < 10_000_000
    assert known.under_way == read.under_way == ()


async def test_one_ruling_at_a_time_goes_by_what_is_known(effects: SubjectEffects, database: Database) -> None:
    await call(effects, database)
    assert effects.recall(ANN, MAIL, FactNeeds()) is None
    assert effects.recall(ANN, MAIL, NAMED) is not None
    assert effects.recall(ANN, MAIL, NAMED) is None


async def test_what_is_known_and_outdated_grants_nothing(effects: SubjectEffects, database: Database) -> None:
    await call(effects, database)
    await put(database, holds__open_escalation="true")
    known = effects.recall(ANN, MAIL, NAMED)
    assert known is not None and not known.holds
    with pytest.raises(FactsChanged):
        await record(effects, database, known.version)
    assert list((await facts_of(effects, NAMED)).holds) == ["open-escalation"]


async def test_what_others_do_or_claim_now_is_read_each_time(effects: SubjectEffects, database: Database) -> None:
    given = await record(effects, database, (await facts_of(effects, NAMED)).version)
    assert await call(effects, database) is False
    assert effects.recall(ANN, MAIL, NAMED) is None
    effects.end_later(given, FAILED)  # type: ignore[arg-type]  # a grant for the store alone
    claims = SubjectClaims(database, SubjectClock(now_us), new_id)
    await claims.take(ClaimRequest("t", "customer:42", "refund", Holder("t|i|bob"), "", 100, 60_000_000))
    assert [await call(effects, database) for _ in range(2)] == [False, False]
