"""The settings, and what `interlock check` verifies, as findings."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.cli.local import check
from gateway.cli.local.doctor.kinds import DoctorFinding

if TYPE_CHECKING:
    from gateway.server.settings import Settings

# The name of a check of `interlock check`: the kinds of what it finds where it fails, and where it recommends something.
_KINDS_BY_CHECK: Final = {
    "home": ("home.unusable", "home.unusable"),
    "keys": ("keys.unusable", "keys.unusable"),
    "vault keys": ("vault.unusable", "vault.unusable"),
    "database": ("database.unusable", "database.unusable"),
    "policies": ("policies.invalid", "policies.doubtful"),
    "sandbox": ("sandbox.missing", "sandbox.weak"),
    "traces": ("traces.unreachable", "traces.unreachable"),
}
_KINDS_BY_PREFIX: Final = {
    "package ": ("install.packages", "install.packages"),
    "workflow ": ("workflows.invalid", "workflows.invalid"),
    "sign_in.providers.": ("sign-in.unusable", "sign-in.doubtful"),
}
_OTHERWISE: Final = ("settings.invalid", "settings.unwise")


def check_as_installed(config: Path | None) -> Iterator[DoctorFinding]:
    """Yields what `interlock check` finds. Keys that others can read are left to the check of the machine, which names its own kind."""
    for found in check.collect_findings(config):
        if found.ok and not found.todo:
            continue
        if not found.ok and found.name == "keys" and "accessible to other users" in found.detail:
            continue
        id_ = _kinds_of(found.name)[1 if found.ok else 0]
        if found.name == "database" and found.todo == check.MIGRATE_TODO:
            id_ = "database.migration"
        yield DoctorFinding(id_, f"{found.name}: {found.detail}", found.todo)


def _kinds_of(name: str) -> tuple[str, str]:
    by_prefix = (kinds for prefix, kinds in _KINDS_BY_PREFIX.items() if name.startswith(prefix))
    return _KINDS_BY_CHECK.get(name) or next(by_prefix, _OTHERWISE)


def check_proxies(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields proxies that are trusted without being known, and a public address behind a proxy that is not trusted."""
    from gateway.server.settings import LOOPBACK

    proxies = settings.server.trusted_proxies
    if "*" in proxies:
        yield DoctorFinding("settings.any-proxy", "server.trusted_proxies has *, so X-Forwarded-For of any client counts")
    public = urlsplit(settings.public_url)
    if public.scheme == "https" and public.hostname not in LOOPBACK and not proxies:
        yield DoctorFinding(
            "settings.no-proxy", f"{settings.public_url} needs a proxy that ends TLS, and server.trusted_proxies names none"
        )


def check_log_level(settings: "Settings") -> Iterator[DoctorFinding]:
    if settings.telemetry.log_level == "debug":
        yield DoctorFinding("settings.debug-log", "telemetry.log_level is debug")


CHECKS: Final = (check_proxies, check_log_level)
