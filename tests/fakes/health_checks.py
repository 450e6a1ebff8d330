"""Runs the health checks that are due to their end."""

from gateway.registration.refresh import EntryRefresher


async def check_due(refresh: EntryRefresher) -> None:
    """Runs a round, and waits for the checks that it began."""
    await refresh.run_once()
    await refresh.wait_for_checks()
