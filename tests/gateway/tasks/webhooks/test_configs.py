import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import PushAuthentication, PushConfig, TaskState, encode
from adapters.upstream.egress import Egress
from gateway.ingress.http.errors import describe
from gateway.storage.database import Database
from gateway.storage.tables import push_configs
from gateway.tasks.log import UnknownTask
from gateway.tasks.webhooks.configs import CONFIGS_MAX, LOOKUPS_PER_OWNER, TooManyPushConfigs, UnknownPushConfig, WebhookConfigs
from tests.fakes.plaintext_settings import PlaintextSettings
from tests.fakes.post_office import ALICE, BOB, PostOffice
from tests.fakes.waiting import until

URL = "http://127.0.0.1:9001/hook"
BEARER = PushAuthentication("Bearer", "s3cret")


async def test_a_config_is_shown_to_its_owner_without_its_secrets(office: PostOffice) -> None:  # attack HOOK-02
    row = await office.open()
    made = await office.push.create(ALICE, row, PushConfig(url=URL, id="c1", token="t0ken", authentication=BEARER))
    assert made == PushConfig(url=URL, id="c1", task_id=row.id, authentication=PushAuthentication("Bearer"))
    assert await office.push.get(ALICE, row, "c1") == made
    assert await office.push.list(ALICE, row) == (made,)
    assert b"t0ken" not in encode(made) and b"s3cret" not in encode(made)


async def test_a_config_without_an_id_is_given_one(office: PostOffice) -> None:
    row = await office.open()
    first, second = await office.notify(row, URL), await office.notify(row, URL)
    assert first.id and second.id and first.id != second.id
    assert {config.id for config in await office.push.list(ALICE, row)} == {first.id, second.id}


async def test_nobody_else_reads_writes_or_removes_a_config(office: PostOffice) -> None:  # attack HOOK-02
    row = await office.open()
    made = await office.notify(row, URL)
    for act in (
        office.push.create(BOB, row, PushConfig(url=URL)),
        office.push.get(BOB, row, made.id),
        office.push.list(BOB, row),
        office.push.delete(BOB, row, made.id),
    ):
        with pytest.raises(UnknownTask):
            await act
    others = replace(row, owner=BOB, id="another")
    assert await office.push.list(BOB, others) == ()
    assert await office.push.list(ALICE, row) == (made,)


async def test_a_removed_config_is_gone_however_often_it_is_removed(office: PostOffice) -> None:
    row = await office.open()
    made = await office.notify(row, URL)
    for _ in range(2):
        await office.push.delete(ALICE, row, made.id)
    with pytest.raises(UnknownPushConfig) as raised:
        await office.push.get(ALICE, row, made.id)
    said = describe(raised.value).mapping
    assert (said.jsonrpc_code, said.status, said.a2a_reason) == (-32001, 404, "TASK_NOT_FOUND")


async def test_the_same_id_replaces_and_counts_once(office: PostOffice) -> None:
    row = await office.open()
    for number in range(CONFIGS_MAX):
        await office.notify(row, URL, id=f"c{number}")
    await office.notify(row, f"{URL}/new", id="c7")
    assert (await office.push.get(ALICE, row, "c7")).url == f"{URL}/new"
    with pytest.raises(TooManyPushConfigs):
        await office.notify(row, URL, id="one-more")
    assert len(await office.push.list(ALICE, row)) == CONFIGS_MAX
    await office.notify(await office.open(), URL, id="c0")


async def test_a_config_for_another_task_is_refused(office: PostOffice) -> None:
    row = await office.open()
    with pytest.raises(BadMessage) as raised:
        await office.notify(row, URL, task_id="another")
    assert raised.value.field == "taskId"


REFUSED = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://10.0.0.1/",
    "http://192.168.1.1:8080/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00:ec2::254]/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.0.1/",
    "http://localhost/",
    "http://[::1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://１２７.0.0.1/",
    "http://user:pass@hook.example/",
    "http://hook.example:22/",
    "http://hook.example:6379/",
    "ftp://hook.example/",
    "file:///etc/passwd",
    "gopher://hook.example/",
    "//hook.example/",
    "",
    "http://",
    "http://hook.example/\r\nX-Injected: 1",
    "http://hook.example/ HTTP/1.1",
    "http://inside.example/",
]


async def inside(host: str, port: int) -> list[str]:
    return {"inside.example": ["10.1.2.3"], "localhost": ["127.0.0.1"]}.get(host, ["93.184.216.34"])


@pytest.mark.parametrize("url", REFUSED)
async def test_a_target_that_is_not_public_is_refused_when_it_is_named(url: str) -> None:  # attack SSR-05, with the forms of SSR-01
    egress = Egress((), lookup=inside)
    push = WebhookConfigs(None, egress, lambda prefix: prefix, lambda: 0, PlaintextSettings())  # type: ignore[arg-type]  # it must not come to a write
    with pytest.raises(BadMessage) as raised:
        await push.check_config(PushConfig(url=url), "1.0", "configuration.taskPushNotificationConfig.").check_name()
    assert raised.value.field == "configuration.taskPushNotificationConfig.url"
    assert not url or url not in str(raised.value)


async def test_a_name_that_stands_for_nothing_yet_is_taken(database: Database, tmp_path: Path) -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    office = PostOffice(database, tmp_path / "home", lookup=nowhere)
    row = await office.open()
    made = await office.notify(row, "https://hook.example/x")
    assert (await office.push.get(ALICE, row, made.id)).url == "https://hook.example/x"


async def test_one_owner_takes_only_a_share_of_the_lookups_of_names() -> None:  # attack AVL-03
    """A lookup counts until its name server answers, though its request has been given up."""
    gate, asked = asyncio.Event(), list[str]()

    class Hangs:
        def check(self, url: str) -> None:
            """The text is fit."""

        async def vet(self, url: str) -> None:
            asked.append(url)
            await gate.wait()

    def look_up(path: str, owner: str) -> Coroutine[Any, Any, None]:
        return cast("Coroutine[Any, Any, None]", push.check_config(PushConfig(url=f"{URL}{path}"), "1.0", owner=owner).check_name())

    push = WebhookConfigs(None, Hangs(), lambda prefix: prefix, lambda: 0, PlaintextSettings())  # type: ignore[arg-type]  # it must not come to a write
    for _ in range(2):
        mine = [asyncio.create_task(look_up("", ALICE)) for _ in range(3 * LOOKUPS_PER_OWNER)]
        await until(lambda: len(asked) == LOOKUPS_PER_OWNER)
        for each in mine:
            each.cancel()
        await asyncio.wait(mine)
        assert len(asked) == LOOKUPS_PER_OWNER
    other = asyncio.create_task(look_up("/bob", BOB))
    await until(lambda: asked[-1] == f"{URL}/bob")
    gate.set()
    await other
    await look_up("/again", ALICE)
    assert asked[-1] == f"{URL}/again"


async def test_a_task_with_all_its_configs_has_no_more_names_looked_up(database: Database, tmp_path: Path) -> None:
    looked_up: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    office = PostOffice(database, tmp_path / "home", lookup=lookup)
    row = await office.open()
    for number in range(CONFIGS_MAX):
        await office.notify(row, URL, id=f"c{number}")
    with pytest.raises(TooManyPushConfigs):
        await office.notify(row, "https://hook.example/x", id="one-more")
    assert "hook.example" not in looked_up


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (PushConfig(url=URL, token="a\r\nX-Injected: 1"), "token"),
        (PushConfig(url=URL, token="a\nb"), "token"),
        (PushConfig(url=URL, token="a\x00b"), "token"),
        (PushConfig(url=URL, token="a\x7f"), "token"),
        (PushConfig(url=URL, token="tök"), "token"),
        (PushConfig(url=URL, token=" led"), "token"),
        (PushConfig(url=URL, token="x" * 4097), "token"),
        (PushConfig(url=URL, authentication=PushAuthentication("Bearer\r\nX-Injected: 1", "a")), "authentication.scheme"),
        (PushConfig(url=URL, authentication=PushAuthentication("Bearer a", "b")), "authentication.scheme"),
        (PushConfig(url=URL, authentication=PushAuthentication("", "b")), "authentication.scheme"),
        (PushConfig(url=URL, authentication=PushAuthentication("Bearer", "a\r\nX-Injected: 1")), "authentication.credentials"),
        (PushConfig(url=URL, authentication=PushAuthentication("Bearer", "a\x00")), "authentication.credentials"),
        (PushConfig(url=URL, id="a\nb"), "id"),
    ],
)
async def test_what_could_add_a_header_is_refused_unquoted(office: PostOffice, config: PushConfig, field: str) -> None:  # attack SSR-05
    row = await office.open()
    with pytest.raises(BadMessage) as raised:
        await office.push.create(ALICE, row, config)
    assert raised.value.field == field
    assert "Injected" not in str(raised.value)
    assert await office.push.list(ALICE, row) == ()


async def test_a_config_of_a_task_that_is_over_is_kept_and_waits_for_nothing(office: PostOffice) -> None:
    row = await office.moves(await office.open(), TaskState.COMPLETED)
    made = await office.notify(row, URL)
    assert await office.push.list(ALICE, row) == (made,)
    query = select(push_configs.c.live)
    assert await office.database.read(lambda connection: connection.execute(query).scalar_one()) == 0
