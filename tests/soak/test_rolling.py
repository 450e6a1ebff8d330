"""Processes are replaced one after the other under load, without a failed request; the database fails over without a restart."""

from pathlib import Path

from tests.soak.rolling import pair, roll

KINDS = {"SendMessage", "SendStreamingMessage", "tools/call", "tools/call in a session", "administration"}


async def test_a_rolling_restart_fails_no_request_of_any_kind(postgres_url: str, tmp_path: Path) -> None:
    async with pair(tmp_path / "pair", postgres_url) as built:
        await roll(built, clients=5, rounds=1)
        assert built.clients.outcome.failed == []
        assert built.clients.outcome.by_kind.keys() == KINDS
        assert min(built.balancer.served.values()) > 50 and built.clients.outcome.reopened >= 1
        assert built.processes[0].proof().is_sound
