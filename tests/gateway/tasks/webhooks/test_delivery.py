import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog.testing
from sqlalchemy import func, select

from adapters.task import PushAuthentication, PushConfig, Role, TaskState
from gateway.storage.database import Database, engine_for
from gateway.storage.tables import deliveries, push_configs
from gateway.tasks.webhooks.delivery import CONCURRENT_MAX, RETRY_SECONDS, SIGNATURE_HEADER, SIGNATURE_TYPE
from gateway.tasks.webhooks.outbox import LEASE_US, PER_OWNER_MAX, PER_TENANT_MAX, UnknownDelivery, _read_configs_behind
from policies.keys.strict_jwt import read_unverified, verify_signature
from policies.tokens.verifier import TokenRefused, TokenVerifier
from tests.fakes.a2a_agents import serving
from tests.fakes.clock import Clock
from tests.fakes.post_office import ALICE, BOB, ISSUER, PostOffice
from tests.fakes.webhook import Webhook


@pytest.fixture
def hook() -> Webhook:
    return Webhook()


@pytest.fixture
async def url(hook: Webhook) -> AsyncIterator[str]:
    async with serving(hook) as url:
        yield f"{url}hook"


async def left(office: PostOffice) -> int:
    query = select(func.count()).select_from(deliveries)
    return await office.database.read(lambda connection: connection.execute(query).scalar_one())


async def test_every_event_after_the_config_arrives_in_order(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.notify(row, url)
    row = await office.moves(row, TaskState.WORKING)
    row = await office.says(row, "on it")
    row = await office.says(row, "my own words", Role.USER)
    row = await office.makes(row, "piece")
    await office.rounds()
    row = await office.moves(row, TaskState.COMPLETED)
    await office.rounds()
    assert hook.told == ["working", "on it", "piece", "completed"]
    assert await left(office) == 0
    live = select(push_configs.c.live)
    assert await office.database.read(lambda connection: connection.execute(live).scalar_one()) == 0


async def test_tasks_of_others_and_configs_of_other_tasks_stay_apart(office: PostOffice) -> None:
    first, second = Webhook(), Webhook()
    async with serving(first) as one, serving(second) as two:
        mine, hers = await office.open(), await office.open(BOB)
        await office.notify(mine, one)
        await office.notify(hers, two)
        await office.moves(mine, TaskState.WORKING)
        await office.moves(hers, TaskState.REJECTED)
        await office.rounds()
    assert (first.told, second.told) == (["working"], ["rejected"])
    assert {notified.json["statusUpdate"]["taskId"] for notified in second.got} == {hers.id}


async def test_a_1_0_webhook_gets_a_stream_response(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.push.create(ALICE, row, PushConfig(url=url, token="t0ken", authentication=PushAuthentication("Bearer", "s3cret")))
    await office.moves(row, TaskState.WORKING)
    await office.rounds()
    [notified] = hook.got
    assert notified.json == {"statusUpdate": {"taskId": row.id, "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}}}
    assert notified.headers["content-type"] == "application/a2a+json"
    assert notified.headers["x-a2a-notification-token"] == "t0ken"
    assert notified.headers["authorization"] == "Bearer s3cret"


async def test_a_0_3_webhook_gets_the_task_as_it_stood_after_each_event(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.push.create(ALICE, row, PushConfig(url=url), "0.3")
    row = await office.makes(row, "piece")
    await office.moves(row, TaskState.COMPLETED)
    await office.rounds()
    first, second = (notified.json for notified in hook.got)
    assert (first["kind"], first["id"], first["status"]["state"]) == ("task", row.id, "submitted")
    assert [part["text"] for part in first["artifacts"][0]["parts"]] == ["piece"]
    assert second["status"]["state"] == "completed"
    assert hook.got[0].headers["content-type"] == "application/json"
    assert "authorization" not in hook.got[0].headers and "x-a2a-notification-token" not in hook.got[0].headers


async def test_a_notification_is_signed_for_its_webhook_and_body(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.notify(row, url)
    await office.moves(row, TaskState.WORKING)
    await office.rounds()
    [notified] = hook.got
    unverified = read_unverified(notified.headers[SIGNATURE_HEADER.lower()])
    assert unverified.kid in {key["kid"] for key in office.keys.jwks()["keys"]}
    verify_signature(unverified, office.keys.find(unverified.kid))
    assert unverified.typ == SIGNATURE_TYPE
    claims = dict(unverified.claims)
    assert claims.pop("jti").startswith("n_")
    now = int(office.clock.now)
    digest = hashlib.sha256(notified.body).hexdigest()
    assert claims == {"iss": ISSUER, "aud": url, "iat": now, "exp": now + 300, "sha256": digest}


async def test_a_signature_is_nobodys_token(office: PostOffice, hook: Webhook, url: str) -> None:
    async def no_fetch(*_: object, **__: object) -> object:
        raise AssertionError("nothing is to be fetched")

    row = await office.open()
    await office.notify(row, url)
    await office.moves(row, TaskState.WORKING)
    await office.rounds()
    identity = TokenVerifier(ISSUER, office.keys, [], no_fetch, True)  # type: ignore[arg-type]  # never called
    with pytest.raises(TokenRefused):
        await identity.verify(hook.got[0].headers[SIGNATURE_HEADER.lower()], [url, ISSUER])


async def test_what_fails_is_tried_again_and_what_is_behind_it_waits(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.notify(row, url)
    row = await office.moves(row, TaskState.WORKING)
    await office.moves(row, TaskState.COMPLETED)
    hook.answers = [500, 302]
    await office.rounds()
    assert hook.told == ["working"]
    await office.rounds(seconds=RETRY_SECONDS[0] - 0.1)
    assert hook.told == ["working"]
    await office.rounds(seconds=0.2)
    assert hook.told == ["working"] * 2
    await office.rounds(seconds=RETRY_SECONDS[1])
    assert hook.told == ["working", "working", "working", "completed"]
    ids = [read_unverified(notified.headers[SIGNATURE_HEADER.lower()]).claims["jti"] for notified in hook.got]
    assert len(set(ids[:3])) == 1 and ids[3] != ids[0]


async def test_one_webhook_that_fails_holds_up_no_other(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.notify(row, "http://127.0.0.1:2/", id="refuses")
    await office.notify(row, url, id="takes")
    row = await office.moves(row, TaskState.WORKING)
    await office.moves(row, TaskState.COMPLETED)
    await office.rounds()
    assert hook.told == ["working", "completed"]


async def test_after_the_last_attempt_it_is_a_dead_letter_and_the_next_one_goes(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    made = await office.notify(row, f"{url}?key=s3cret")
    row = await office.moves(row, TaskState.WORKING)
    await office.moves(row, TaskState.COMPLETED)
    hook.answers = [503] * (len(RETRY_SECONDS) + 1)
    await office.rounds()
    for seconds in RETRY_SECONDS:
        await office.rounds(seconds=seconds + 1)
    assert hook.told == ["working"] * (len(RETRY_SECONDS) + 1)
    [letter], more = await office.outbox.list_dead_letters("default", "", 10)
    assert more is None
    assert (letter["task_id"], letter["config_id"], letter["seq"], letter["attempts"]) == (row.id, made.id, 3, len(RETRY_SECONDS) + 1)
    assert letter["reason"] == "the webhook answered with HTTP 503"
    assert letter["target"] == url.removesuffix("/hook")
    assert "s3cret" not in json.dumps(letter)  # attack HOOK-02
    assert await office.outbox.list_dead_letters("another", "", 10) == ([], None)
    await office.rounds()
    assert hook.told[-1] == "completed"


async def test_a_dead_letter_that_is_tried_again_arrives(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.notify(row, url)
    await office.moves(row, TaskState.WORKING)
    hook.answers = [503] * (len(RETRY_SECONDS) + 1)
    await office.rounds()
    for seconds in RETRY_SECONDS:
        await office.rounds(seconds=seconds + 1)
    [letter], _ = await office.outbox.list_dead_letters("default", "", 10)
    with pytest.raises(UnknownDelivery):
        await office.outbox.retry("another", letter["id"])
    await office.outbox.retry("default", letter["id"])
    assert await office.outbox.list_dead_letters("default", "", 10) == ([], None)
    await office.rounds()
    assert hook.told[-1] == "working" and len(hook.got) == len(RETRY_SECONDS) + 2
    assert await left(office) == 0
    with pytest.raises(UnknownDelivery):
        await office.outbox.retry("default", letter["id"])


async def test_dead_letters_come_in_pages_newest_first(office: PostOffice) -> None:
    rows = [await office.open() for _ in range(3)]
    for row in rows:
        await office.notify(row, "http://127.0.0.1:9001/")
        await office.moves(row, TaskState.WORKING)
    for delivery in await office.outbox.acquire_due(10, {}):
        await office.outbox.record_failure(delivery, "no", None)
    first, cursor = await office.outbox.list_dead_letters("default", "", 2)
    assert cursor is not None
    second, end = await office.outbox.list_dead_letters("default", cursor, 2)
    ids = [letter["id"] for letter in first + second]
    assert ids == sorted(ids, reverse=True) and len(set(ids)) == 3 and end is None


async def test_a_name_that_moved_inside_is_refused_when_it_is_sent(database: Database, tmp_path: Path) -> None:  # attack SSR-05
    stands_for = ["93.184.216.34"]

    async def lookup(host: str, port: int) -> list[str]:
        return stands_for

    canary = Webhook()
    async with serving(canary) as inside:
        port = inside.rstrip("/").rpartition(":")[2]
        office = PostOffice(database, tmp_path / "home", lookup=lookup, allow=("hook.example",))
        row = await office.open()
        await office.notify(row, f"http://hook.example:{port}/")
        stands_for[:] = ["169.254.169.254"]
        await office.moves(row, TaskState.WORKING)
        await office.rounds()
        await office.close()
    assert canary.got == []
    [letter], _ = await office.outbox.list_dead_letters("default", "", 10)
    assert letter["reason"].startswith("refused: ") and letter["attempts"] == 1


async def test_a_removed_config_is_told_nothing_more(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    made = await office.notify(row, url)
    row = await office.moves(row, TaskState.WORKING)
    hook.answers = [500]
    await office.rounds()
    await office.push.delete(ALICE, row, made.id)
    await office.moves(row, TaskState.COMPLETED)
    await office.rounds(3, seconds=10)
    assert hook.told == ["working"] and await left(office) == 0


async def test_another_process_goes_on_where_one_was_killed(database_url: str, tmp_path: Path, hook: Webhook, url: str) -> None:
    clock = Clock()
    first = Database(engine_for(database_url))
    first.start()
    office = PostOffice(first, tmp_path / "home", clock)
    row = await office.open()
    await office.notify(row, url)
    row = await office.moves(row, TaskState.WORKING)
    await office.rounds()
    row = await office.makes(row, "piece")
    row = await office.moves(row, TaskState.COMPLETED)
    [taken] = await office.outbox.acquire_due(10, {})  # killed before it could be sent
    first.close()

    second = Database(engine_for(database_url))
    second.start()
    office = PostOffice(second, tmp_path / "home", clock)
    await office.rounds(2)
    assert hook.told == ["working"]
    await office.rounds(seconds=LEASE_US / 1_000_000)
    assert hook.told == ["working", "piece", "completed"]
    assert read_unverified(hook.got[1].headers[SIGNATURE_HEADER.lower()]).claims["jti"] == taken.id
    await office.close()
    second.close()


async def test_two_processes_send_nothing_twice(database_url: str, tmp_path: Path, hook: Webhook, url: str) -> None:
    clock = Clock()
    databases = [Database(engine_for(database_url)) for _ in range(2)]
    for database in databases:
        database.start()
    one, two = (PostOffice(database, tmp_path / "home", clock) for database in databases)
    for _ in range(6):
        row = await one.open()
        await one.notify(row, url)
        row = await one.moves(row, TaskState.WORKING)
        await one.moves(row, TaskState.COMPLETED)
    for _ in range(3):
        for office in (one, two):
            await office.postman.run_once()
        for office in (one, two):
            await office.all_sent()
    seen = [(notified.json["statusUpdate"]["taskId"], notified.what) for notified in hook.got]
    assert len(seen) == len(set(seen)) == 12
    for office in (one, two):
        await office.close()
    for database in databases:
        database.close()


async def test_what_another_process_took_up_meanwhile_is_not_settled_by_the_first(office: PostOffice) -> None:
    row = await office.open()
    await office.notify(row, "http://127.0.0.1:9001/")
    await office.moves(row, TaskState.WORKING)
    [late] = await office.outbox.acquire_due(10, {})
    office.clock.now += LEASE_US / 1_000_000
    [again] = await office.outbox.acquire_due(10, {})
    assert (again.id, again.attempts) == (late.id, 2)
    assert await office.outbox.complete(late) is None
    await office.outbox.record_failure(late, "late", None)
    assert await left(office) == 1 and await office.outbox.list_dead_letters("default", "", 10) == ([], None)
    assert await office.outbox.complete(again) is None
    assert await left(office) == 0


async def test_one_person_does_not_take_all_the_postmen(office: PostOffice) -> None:
    for owner in [ALICE] * (PER_OWNER_MAX + 3) + [BOB]:
        row = await office.open(owner)
        await office.notify(row, "http://127.0.0.1:9001/")
        await office.moves(row, TaskState.WORKING)
    first = await office.outbox.acquire_due(100, {})
    assert sorted(delivery.owner for delivery in first) == [ALICE] * PER_OWNER_MAX + [BOB]
    assert await office.outbox.acquire_due(100, {ALICE: PER_OWNER_MAX, BOB: 1}) == []
    assert len(await office.outbox.acquire_due(100, {BOB: 1})) == 3


async def test_one_tenant_does_not_take_all_the_postmen(office: PostOffice) -> None:  # attack AVL-03
    for owner in [f"acme|idp|user{number}" for number in range(PER_TENANT_MAX + 3)] + [BOB]:
        row = await office.open(owner, owner.partition("|")[0])
        await office.notify(row, "http://127.0.0.1:9001/")
        await office.moves(row, TaskState.WORKING)
    first = await office.outbox.acquire_due(100, {})
    assert [delivery.owner.partition("|")[0] for delivery in first].count("acme") == PER_TENANT_MAX < CONCURRENT_MAX
    assert BOB in {delivery.owner for delivery in first}
    assert await office.outbox.acquire_due(100, {f"acme|idp|user{number}": 1 for number in range(PER_TENANT_MAX)}) == []


async def test_a_config_set_again_mid_way_loses_and_repeats_nothing(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.notify(row, "http://127.0.0.1:2/", id="c1")
    row = await office.moves(row, TaskState.WORKING)
    await office.rounds()
    await office.notify(row, url, id="c1")
    await office.moves(row, TaskState.COMPLETED)
    await office.rounds(seconds=RETRY_SECONDS[0] + 1)
    assert hook.told == ["working", "completed"]


async def test_no_secret_is_logged_or_printed(office: PostOffice, hook: Webhook, url: str) -> None:  # attack HOOK-02
    row = await office.open()
    config = PushConfig(url=f"{url}?key=u5l", token="t0ken", authentication=PushAuthentication("Bearer", "s3cret"))
    await office.push.create(ALICE, row, config)
    await office.moves(row, TaskState.WORKING)
    hook.answers = [500]
    with structlog.testing.capture_logs() as logs:
        await office.rounds()
        office.clock.now += RETRY_SECONDS[0] + 1
        [delivery] = await office.outbox.acquire_due(10, {})
    assert [entry["event"] for entry in logs] == ["push_failed"]
    for secret in ("u5l", "t0ken", "s3cret"):
        assert secret not in repr(logs) and secret not in repr(delivery)


async def test_the_persons_own_words_are_no_delivery(office: PostOffice) -> None:
    row = await office.open()
    await office.notify(row, "http://127.0.0.1:9001/")
    await office.says(row, "my own words", Role.USER)
    assert await office.outbox.acquire_due(10, {}) == [] and await left(office) == 0


async def test_an_event_that_two_processes_see_at_once_becomes_one_delivery(office: PostOffice) -> None:
    row = await office.open()
    await office.notify(row, "http://127.0.0.1:9001/")
    await office.moves(row, TaskState.WORKING)
    seen = [await office.database.read(_read_configs_behind) for _ in range(2)]
    for late in seen:
        await office.database.write(lambda batch, late=late: [office.outbox._add_deliveries(batch, each) for each in late])
    assert len(seen[1]) == 1 and await left(office) == 1


async def test_what_waits_for_its_next_attempt_waits_though_one_before_it_arrived(office: PostOffice, hook: Webhook, url: str) -> None:
    row = await office.open()
    await office.notify(row, url)
    row = await office.moves(row, TaskState.WORKING)
    await office.moves(row, TaskState.COMPLETED)
    [first] = await office.outbox.acquire_due(10, {})
    await office.outbox.record_failure(first, "no", None)
    [second] = await office.outbox.acquire_due(10, {})
    await office.outbox.record_failure(second, "no", 60_000_000)
    await office.outbox.retry("default", first.id)
    await office.rounds()
    assert hook.told == ["working"]
    await office.rounds(seconds=61)
    assert hook.told == ["working", "completed"]
