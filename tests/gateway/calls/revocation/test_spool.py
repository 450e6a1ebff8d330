"""What reduces authority goes on while the database takes no writes: at once here, across a restart, and in the audit afterwards."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.calls.revocation.spool import FILE_NAME, Spool
from policies.delegation.grants import GrantEnded
from policies.tables import audit_records as audit_table
from policies.tables import grants as grants_table
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.outages import read_only
from tests.fakes.waiting import until


class Errand:
    """An agent at work for alice, whose grant is revoked meanwhile."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.grant_id = ""
        self.answers: list[httpx.Response] = []

    async def revoke(self, user: str = "alice") -> httpx.Response:
        return await self.home.http.delete(f"/api/grants/{self.grant_id}", headers={"authorization": f"Bearer {self.home.token(user)}"})

    async def exchange(self, token: str) -> httpx.Response:
        return await self.home.exchange("support", token, "/agents/sales", "agent:sales")

    async def run(self, during: Any) -> None:
        async def act(token: str, text: str) -> str:
            rows = await self.home.gateway.database.read(lambda c: c.execute(select(grants_table.c.id)).scalars().all())
            self.grant_id = rows[0]
            assert (await self.exchange(token)).status_code == 200
            await during(token)
            return "done"

        await self.home.agent(CallbackAgent("support", act))
        await self.home.agent(CallbackAgent("sales"))
        await self.home.send(self.home.token("alice"), "support", "hello")


async def revocations(home: House) -> list[dict[str, Any]]:
    query = select(audit_table.c.body).where(audit_table.c.kind == "revocation")
    rows = await home.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return [json.loads(body) for body in rows]


async def test_a_grant_is_revoked_at_once_though_nothing_can_be_kept(home: House) -> None:
    errand = Errand(home)
    spool = home.gateway.settings.home / FILE_NAME

    async def during(token: str) -> None:
        async with read_only(home.gateway.database):
            assert (await errand.revoke("bob")).status_code == 404
            assert not spool.exists()
            assert (await errand.revoke()).status_code == 204
            assert spool.stat().st_mode & 0o777 == 0o600
            refused = await errand.exchange(token)
            assert refused.status_code in (400, 503)  # the refusal itself has to be kept
        assert (await errand.exchange(token)).json()["error"] == "invalid_grant"

    await errand.run(during)
    await until(lambda: not spool.exists(), every=0.05)
    (record,) = await revocations(home)
    assert record["grant_id"] == errand.grant_id and record["spooled"] and record["principal"]["subject"] == "alice"
    query = select(grants_table.c.revoked).where(grants_table.c.id == errand.grant_id)
    assert await home.gateway.database.read(lambda c: c.execute(query).scalar()) == record["at"]


async def test_a_revocation_outlives_a_restart_before_it_is_kept_and_is_kept_once(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url) as home:
        errand = Errand(home)

        async def during(token: str) -> None:
            """Nothing."""

        await errand.run(during)
        record = {
            "kind": "revocation",
            "at": 5,
            "tenant": "default",
            "decision_id": "",
            "txn": "",
            "task_id": "",
            "grant_id": errand.grant_id,
        }
        path = home.gateway.settings.home / FILE_NAME
    path.write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n" + '{"kind": "revoca')  # the process ended while it wrote
    async with house(tmp_path / "home", database_url) as again:
        with pytest.raises(GrantEnded):
            await again.gateway.rulings.grants.find("default", errand.grant_id)
        await until(lambda: not path.exists(), every=0.05)
        assert len(await revocations(again)) == 1


async def test_what_is_put_while_the_spool_is_emptied_stays(home: House, tmp_path: Path) -> None:
    gateway = home.gateway
    spool = Spool(tmp_path, gateway.audit, gateway.rulings.grants, gateway.rulings.kills)
    decisions = [{"kind": "decision", "at": 1, "tenant": "default", "decision_id": f"d_{n}", "txn": "", "task_id": ""} for n in range(3)]
    for one in decisions[:2]:
        await spool.spool_record(one)
    taken = spool._read_records()
    await spool.spool_record(decisions[2])
    spool._remove_records(taken)
    assert spool._read_records() == decisions[2:]
    assert await spool.drain(gateway.database) == 1
    assert await spool.drain(gateway.database) == 0
