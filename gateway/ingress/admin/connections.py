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
from gateway.calls.authorizer import InPerson
from gateway.calls.consent.account_connections import CONNECTIONS, UnknownConnection, record_of
from gateway.tasks.log import rfc3339
from policies.callers import Caller
from policies.vault.credentials import Credential, CredentialKey, origin_of
from registry.cards.card import Registration

Admitted = Callable[[Request], Awaitable[Caller]]
Note = Callable[[Mapping[str, Any]], Awaitable[None]]
Revoke = Callable[[CredentialKey, Credential, Sequence[Mapping[str, Any]]], Awaitable[bool]]
Held = tuple[tuple[CredentialKey, Credential], ...]
log = structlog.get_logger()


class Vault(Protocol):
    """policies/vault/store.py."""

    async def owned(self, tenant: str, owner: str) -> Held: ...

    async def forget(self, key: CredentialKey) -> None: ...


@dataclass(frozen=True, slots=True)
class Accounts:
    """What the routes stand on: `known` are the entries that a caller may know of; `note` keeps an audit record.

    `revoke` tells an authorization server of a credential that is not used any more (adapters/oauth/authorized.py).
    """

    vault: Vault
    known: Callable[[Caller], list[Registration]]
    note: Note
    check_in_person: InPerson
    revoke: Revoke


def routes(accounts: Accounts, admitted: Admitted) -> APIRouter:
    """A person sees and forgets their own accounts; an agent none."""
    router = APIRouter(prefix="/api/connections", tags=["connections"])

    async def own(caller: Caller) -> Held:
        await accounts.check_in_person(caller, CONNECTIONS)
        return await accounts.vault.owned(caller.principal.tenant, caller.principal.owner)

    @router.get("", name="list_connections")
    async def list_connections(caller: Annotated[Caller, Depends(admitted)]) -> JSONResponse:
        held, entries = await own(caller), accounts.known(caller)
        return JSONResponse({"items": [_item(*each, entries) for each in held], "next": None})

    @router.delete("/{connection_id}", name="forget_connection")
    async def forget(caller: Annotated[Caller, Depends(admitted)], connection_id: str) -> JSONResponse:
        """It is forgotten here whatever the authorization server says; `revoked` tells what that said."""
        found = next((each for each in await own(caller) if id_of(each[0]) == connection_id), None)
        if found is None:
            raise UnknownConnection
        key, held = found
        await accounts.note(record_of(key, "forgotten"))
        await accounts.vault.forget(key)
        entries = [entry for entry in accounts.known(caller) if _opens(key, entry)]
        revoked = await _revoked(accounts.revoke, key, held, [entry.upstream for entry in entries])
        log.info("disconnected", issuer=key.issuer, resource=key.resource, principal=key.owner, revoked=revoked)
        return JSONResponse({"id": connection_id, "removed": True, "revoked": revoked})

    return router


async def _revoked(revoke: Revoke, key: CredentialKey, held: Credential, upstreams: Sequence[Mapping[str, Any]]) -> str:
    """`yes`, `not-offered` where the authorization server takes no revocations, or `failed`."""
    try:
        return "yes" if await revoke(key, held, upstreams) else "not-offered"
    except (UpstreamFault, EgressRefused) as fault:
        log.warning("connection_not_revoked", issuer=key.issuer, resource=key.resource, problem=str(fault))
        return "failed"


def _opens(key: CredentialKey, entry: Registration) -> bool:
    return origin_of(entry.url) == origin_of(key.resource) and "auth" in entry.upstream


def id_of(key: CredentialKey) -> str:
    """The same as long as it is the same account at the same place."""
    return "k_" + hashlib.sha256(json.dumps(key.place).encode()).hexdigest()[:24]


def _item(key: CredentialKey, held: Credential, entries: list[Registration]) -> dict[str, Any]:
    """Nothing that opens anything."""
    return {
        "id": id_of(key),
        "resource": key.resource,
        "issuer": key.issuer,
        "names": [entry.name for entry in entries if _opens(key, entry)],
        "client_id": held.client_id,
        "scopes": sorted(held.scopes),
        "renews": bool(held.refresh_token),
        "since": rfc3339(int(held.obtained * 1e6)) if held.obtained else None,
        "expires": rfc3339(int(held.expires * 1e6)) if held.expires else None,
    }
