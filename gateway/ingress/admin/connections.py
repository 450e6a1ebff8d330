"""/api/connections: the accounts that a person has connected, which only that person lists and removes."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from adapters.contract import UpstreamFault
from adapters.upstream.targets import EgressRefused
from gateway.calls.authorizer import RequireInPerson
from gateway.calls.consent.account_connections import MANAGE_CONNECTIONS, UnknownConnection, connection_record
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.vault.credentials import Credential, CredentialKey, origin_of
from policies.vault.store import DatabaseVault
from registry.cards.card import Registration

Authenticate = Callable[[Request], Awaitable[Caller]]
RecordAudit = Callable[[Mapping[str, Any]], Awaitable[None]]
RevokeCredential = Callable[[CredentialKey, Credential, Sequence[Mapping[str, Any]]], Awaitable[bool]]
StoredCredentials = tuple[tuple[CredentialKey, Credential], ...]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ConnectionDependencies:
    """What the routes use.

    `visible_entries` returns the entries that a caller may know of. `revoke_credential` revokes a credential at its authorization server
    (adapters/oauth/authorized.py).
    """

    vault: DatabaseVault
    visible_entries: Callable[[Caller], Awaitable[list[Registration]]]
    record_audit: RecordAudit
    check_in_person: RequireInPerson
    revoke_credential: RevokeCredential


def routes(dependencies: ConnectionDependencies, authenticate: Authenticate) -> APIRouter:
    """Returns the routes. A person lists and removes their own accounts; an agent none."""
    router = APIRouter(prefix="/api/connections", tags=["connections"])

    async def read_own(caller: Caller) -> StoredCredentials:
        await dependencies.check_in_person(caller, MANAGE_CONNECTIONS)
        return await dependencies.vault.list_of_owner(caller.principal.tenant, caller.principal.owner_key)

    @router.get("", name="list_connections")
    async def list_connections(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        held = await read_own(caller)
        entries = await dependencies.visible_entries(caller) if held else []  # which takes long where there are many
        return JSONResponse({"items": [_connection_document(*each, entries) for each in held], "next": None})

    @router.delete("/{connection_id}", name="forget_connection")
    async def delete_connection(caller: Annotated[Caller, Depends(authenticate)], connection_id: str) -> JSONResponse:
        """Deletes the credential even when its revocation fails; `revoked` reports the revocation."""
        found = next((each for each in await read_own(caller) if connection_id_of(each[0]) == connection_id), None)
        if found is None:
            raise UnknownConnection
        key, held = found
        await dependencies.record_audit(connection_record(key, "forgotten"))
        await dependencies.vault.delete(key)
        entries = [entry for entry in await dependencies.visible_entries(caller) if _is_used_by(key, entry)]
        revoked = await _revoke_upstream(dependencies.revoke_credential, key, held, [entry.upstream for entry in entries])
        log.info("account_disconnected", issuer=key.issuer, resource=key.resource, principal=key.owner, revoked=revoked)
        return JSONResponse({"id": connection_id, "removed": True, "revoked": revoked})

    return router


async def _revoke_upstream(
    revoke_credential: RevokeCredential, key: CredentialKey, credential: Credential, upstreams: Sequence[Mapping[str, Any]]
) -> str:
    """Returns `yes`, `not-offered` when the authorization server offers no revocation, or `failed`."""
    try:
        return "yes" if await revoke_credential(key, credential, upstreams) else "not-offered"
    except (UpstreamFault, EgressRefused) as fault:
        log.warning("connection_not_revoked", issuer=key.issuer, resource=key.resource, problem=str(fault))
        return "failed"


def _is_used_by(key: CredentialKey, entry: Registration) -> bool:
    return origin_of(entry.url) == origin_of(key.resource) and "auth" in entry.upstream


def connection_id_of(key: CredentialKey) -> str:
    """Returns the id of a connection, which is equal as long as the account and its server are."""
    return "k_" + hashlib.sha256(json.dumps(key.full_key).encode()).hexdigest()[:24]


def _connection_document(key: CredentialKey, credential: Credential, entries: list[Registration]) -> dict[str, Any]:
    """Returns a connection without its secrets."""
    return {
        "id": connection_id_of(key),
        "resource": key.resource,
        "issuer": key.issuer,
        "names": [entry.name for entry in entries if _is_used_by(key, entry)],
        "client_id": credential.client_id,
        "scopes": sorted(credential.scopes),
        "renews": bool(credential.refresh_token),
        "since": to_rfc3339(int(credential.obtained * 1e6)) if credential.obtained else None,
        "expires": to_rfc3339(int(credential.expires * 1e6)) if credential.expires else None,
    }
