"""kill -9 at any point loses nothing that was acknowledged, leaves nothing hanging, and hides nothing that was done."""

import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from policies.audit.heads import HEAD_JWT_TYPE
from policies.audit.proof import read_rows
from policies.keys.signing import SigningKeys
from tests.fakes.waiting import until
from tests.journeys.kill_rounds import POINTS, killed
from tests.journeys.kills import Gateway, town

ROUNDS = {
    "sqlite": ["while_many_are_sent", "as_an_effect_begins", "as_an_effect_ends", "while_agents_work"],
    "postgres": ["while_agents_work", "while_many_are_sent"],
}


@pytest.mark.parametrize("kind", list(ROUNDS))
async def test_a_gateway_that_is_killed_loses_nothing_and_hides_nothing(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'interlock.db'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    async with town(tmp_path / "town", url) as built:
        await built.start()
        for seed, point in enumerate(ROUNDS[kind], 1):
            await until(lambda: bool(_heads(built.gateway)), every=0.1)  # so that one of the killed has left a head
            done = await killed(built, point, seed)
            assert done.effects > 0 and done.told > 0, done
        assert done.failed > 0
        assert built.gateway.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
        assert built.gateway.proof().is_sound
        _assert_tampering_is_found(built.gateway)
        if kind == "sqlite":
            _assert_the_command_finds_a_flipped_byte(built.gateway, tmp_path)


def _heads(gateway: Gateway) -> list[dict[str, Any]]:
    keys = SigningKeys.open(gateway.data)
    return [dict(keys.verify(line, HEAD_JWT_TYPE)) for line in gateway.heads()]


def _assert_tampering_is_found(gateway: Gateway) -> None:
    """In the chain of a process that was killed, as in that of one that ended well."""
    with gateway.reading() as connection:
        rows = [dict(row) for row in read_rows(connection)]
    signed = {head["chain"]: head["seq"] for head in _heads(gateway)}
    assert len(signed) > 1
    for chain, seq in signed.items():
        mine = [number for number, row in enumerate(rows) if row["chain"] == chain]
        middle, last = mine[len(mine) // 2], mine[seq - 1]
        edited = {**rows[middle], "body": rows[middle]["body"].replace('"allowed":true', '"allowed":null').replace("ok", "no") + " "}
        swapped = [*rows[: middle - 1], rows[middle], rows[middle - 1], *rows[middle + 1 :]]
        cut = [row for row in rows if row["chain"] != chain or row["seq"] < rows[last]["seq"]]
        for tampered in ([*rows[:middle], edited, *rows[middle + 1 :]], [*rows[:middle], *rows[middle + 1 :]], swapped, cut):
            assert not gateway.proof(tampered).is_sound, chain
        assert not gateway.proof([row for row in rows if row["chain"] != chain]).is_sound


def _assert_the_command_finds_a_flipped_byte(gateway: Gateway, folder: Path) -> None:
    copy = folder / "copy.db"
    shutil.copy(gateway.database_url.removeprefix("sqlite:///"), copy)
    with sqlite3.connect(copy) as database:
        allowed = "SELECT min(rowid) FROM audit WHERE body LIKE '%\"allowed\":true%'"
        changed = database.execute(f"UPDATE audit SET body = replace(body, '\"allowed\":true', '\"allowed\":1') WHERE rowid = ({allowed})")
        assert changed.rowcount == 1
    database.close()
    settings = gateway.folder / "interlock.yaml"
    settings.write_text(settings.read_text().replace(gateway.database_url, f"sqlite:///{copy}"))
    verification = gateway.verify()
    said, _ = verification.communicate(timeout=300)
    assert verification.returncode != 0 and '"sound": false' in said


def test_every_point_of_the_loop_has_a_name_that_says_when() -> None:
    assert set(ROUNDS["sqlite"]) | set(ROUNDS["postgres"]) <= set(POINTS)
