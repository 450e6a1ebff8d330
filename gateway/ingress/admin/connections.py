"""/api/connections: the accounts that a person has connected, which they see and give up themselves."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

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
from registry.cards.card import Registration

Authenticate = Callable[[Request], Awaitable[Caller]]
RecordAudit = Callable[[Mapping[str, Any]], Awaitable[None]]
RevokeCredential = Callable[[CredentialKey, Credential, Sequence[Mapping[str, Any]]], Awaitable[bool]]
StoredCredentials = tuple[tuple[CredentialKey, Credential], ...]
log = structlog.get_logger()


class PersonCredentials(Protocol):
    """policies/vault/store.py."""

    async def list_of_owner(self, tenant: str, owner: str) -> StoredCredentials: ...

    async def delete(self, key: CredentialKey) -> None: ...


@dataclass(frozen=True, slots=True)
class ConnectionDependencies:
    """What the routes stand on: `known` are the entries that a caller may know of; `note` keeps an audit record.

    `revoke` tells an authorization server of a credential that is not used any more (adapters/oauth/authorized.py).
    """

    vault: PersonCredentials
    visible_entries: Callable[[Caller], list[Registration]]
    record_audit: RecordAudit
    check_in_person: RequireInPerson
    revoke_credential: RevokeCredential


def routes(dependencies: ConnectionDependencies, authenticate: Authenticate) -> APIRouter:
    """A person sees and forgets their own accounts; an agent none."""
    router = APIRouter(prefix="/api/connections", tags=["connections"])

    async def read_own(caller: Caller) -> StoredCredentials:
        await dependencies.check_in_person(caller, MANAGE_CONNECTIONS)
        return await dependencies.vault.list_of_owner(caller.principal.tenant, caller.principal.owner_key)

    @router.get("", name="list_connections")
    async def list_connections(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        held, entries = await read_own(caller), dependencies.visible_entries(caller)
        return JSONResponse({"items": [_connection_document(*each, entries) for each in held], "next": None})

    @router.delete("/{connection_id}", name="forget_connection")
    async def delete_connection(caller: Annotated[Caller, Depends(authenticate)], connection_id: str) -> JSONResponse:
        """It is forgotten here whatever the authorization server says; `revoked` tells what that said."""
        found = next((each for each in await read_own(caller) if connection_id_of(each[0]) == connection_id), None)
        if found is None:
            raise UnknownConnection
        key, held = found
        await dependencies.record_audit(connection_record(key, "forgotten"))
        await dependencies.vault.delete(key)
        entries = [entry for entry in dependencies.visible_entries(caller) if _is_used_by(key, entry)]
        revoked = await _revoke_upstream(dependencies.revoke_credential, key, held, [entry.upstream for entry in entries])
        log.info("disconnected", issuer=key.issuer, resource=key.resource, principal=key.owner, revoked=revoked)
        return JSONResponse({"id": connection_id, "removed": True, "revoked": revoked})

    return router


async def _revoke_upstream(
    revoke_credential: RevokeCredential, key: CredentialKey, credential: Credential, upstreams: Sequence[Mapping[str, Any]]
) -> str:
    """`yes`, `not-offered` where the authorization server takes no revocations, or `failed`."""
    try:
        return "yes" if await revoke_credential(key, credential, upstreams) else "not-offered"
    except (UpstreamFault, EgressRefused) as fault:
        log.warning("connection_not_revoked", issuer=key.issuer, resource=key.resource, problem=str(fault))
        return "failed"


def _is_used_by(key: CredentialKey, entry: Registration) -> bool:
    return origin_of(entry.url) == origin_of(key.resource) and "auth" in entry.upstream


def connection_id_of(key: CredentialKey) -> str:
    """The same as long as it is the same account at the same place."""
    return "k_" + hashlib.sha256(json.dumps(key.full_key).encode()).hexdigest()[:24]


def _connection_document(key: CredentialKey, credential: Credential, entries: list[Registration]) -> dict[str, Any]:
    """Nothing that opens anything."""
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
