"""Builds the store of people's sessions, and follows their ends."""

from functools import partial

from gateway.ingress.oauth.sign_in.sessions import EPOCH, SessionLives, SignInSessions, delete_old
from gateway.server.composition.access.rulings import Rulings
from gateway.server.periodic import PeriodicTasks
from gateway.server.settings import BadSettings, Settings
from gateway.storage.database import Database
from policies.audit.log import AuditLog
from policies.ids import now_us
from policies.vault.envelope import EnvelopeEncryption

SWEEP_SECONDS = 60.0


def build_sessions(
    settings: Settings, database: Database, envelope: EnvelopeEncryption, rulings: Rulings, audit: AuditLog
) -> SignInSessions:
    """Builds the store of sessions. Raises BadSettings for a provider of sign-in that is no trusted issuer."""
    section, known = settings.sign_in, {issuer.issuer for issuer in settings.identity.issuers}
    for name, provider in section.providers.items():
        if provider.issuer not in known:
            raise BadSettings(f"sign_in.providers.{name}.issuer: {provider.issuer} is not one of identity.issuers")
    lives, on_end = SessionLives(section.session_life, section.renewed_life), partial(_forget_ended, rulings)
    return SignInSessions(database, envelope, lives, now_us, audit.record, on_end=on_end)


async def start_sessions(settings: Settings, database: Database, rulings: Rulings, periodic_tasks: PeriodicTasks) -> None:
    """Reads the sessions that ended a short while ago, follows changes of them, and deletes old ones from time to time."""
    database.watch(EPOCH, partial(_forget_ended, rulings))
    await rulings.ended_sessions.reload()
    if settings.has_sign_in:
        periodic_tasks.repeat_elected(SWEEP_SECONDS, lambda: delete_old(database, now_us()))


async def _forget_ended(rulings: Rulings) -> None:
    """Drops what is cached of tokens, so that those of ended sessions are refused."""
    await rulings.ended_sessions.reload()
    rulings.token_verifier.invalidate()
    rulings.caller_resolver.invalidate()
