"""A vault in memory, for tests of what uses one."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from policies.delegation.rulings import Grant
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, CredentialVault, WrongOwner, origin_of

KEPT = 10_000


class MemoryVault:
    """In this process only, and gone with it. The longest kept make room."""

    def __init__(self) -> None:
        self._credentials: OrderedDict[tuple[str, str, str], dict[CredentialKey, Credential]] = OrderedDict()
        self._clients: OrderedDict[tuple[str, str], ClientRegistration] = OrderedDict()
        self._locks: dict[tuple[str, ...], asyncio.Lock] = {}

    async def read(self, grant: Grant, key: CredentialKey) -> Credential | None:
        if not key.is_open_to(grant):
            raise WrongOwner
        return self._credentials.get(_drawer(key), {}).get(key)

    async def find(self, grant: Grant, origin: str, personal: bool) -> Sequence[tuple[CredentialKey, Credential]]:
        principal = grant.delegation.principal
        return list(self._credentials.get((principal.tenant, principal.owner_key if personal else "", origin), {}).items())

    async def write(self, key: CredentialKey, credential: Credential) -> None:
        drawer = self._credentials.setdefault(_drawer(key), {})
        drawer.pop(key, None)
        drawer[key] = credential
        if len(self._credentials) > KEPT:
            self._credentials.popitem(last=False)

    async def delete(self, key: CredentialKey) -> None:
        drawer = self._credentials.get(_drawer(key), {})
        if drawer.pop(key, None) is not None and not drawer:
            del self._credentials[_drawer(key)]

    @asynccontextmanager
    async def lease(self, name: Sequence[str]) -> AsyncIterator[None]:
        async with self._locks.setdefault(tuple(name), asyncio.Lock()):
            yield

    async def find_client(self, tenant: str, issuer: str) -> ClientRegistration | None:
        return self._clients.get((tenant, issuer))

    async def write_client(self, tenant: str, client: ClientRegistration) -> None:
        self._clients[(tenant, client.issuer)] = client
        if len(self._clients) > KEPT:
            self._clients.popitem(last=False)

    async def delete_client(self, tenant: str, issuer: str) -> None:
        self._clients.pop((tenant, issuer), None)


def _drawer(key: CredentialKey) -> tuple[str, str, str]:
    return (key.tenant, key.owner, origin_of(key.resource))


_: type[CredentialVault] = MemoryVault
