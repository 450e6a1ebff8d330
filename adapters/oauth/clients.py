"""Who the gateway is at each authorization server: as its operator says, by the address of a document, or by a registration of its own."""

from collections.abc import Sequence
from typing import Final

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import AuthorizationServer
from adapters.oauth.grants import FORGOTTEN, OAuthRefused, OAuthRequests, OwnClient
from adapters.oauth.options import AuthTerms
from policies.cache import BoundedCache
from policies.vault.credentials import Client, Credential, CredentialKey, Vault

KNOWN_SECONDS: Final = 600.0  # for which a registration that was good is not asked about
KNOWN_MAX: Final = 4096


class OwnClients:
    """`own.now` counts seconds since 1970."""

    def __init__(self, own: OwnClient, requests: OAuthRequests, vault: Vault) -> None:
        self._own = own
        self._requests = requests
        self._vault = vault
        self._known: BoundedCache[tuple[str, str], str] = BoundedCache(KNOWN_MAX, own.now)

    async def of(self, tenant: str, terms: AuthTerms, at: AuthorizationServer, lasting: bool = False) -> Client:
        """Set up by the operator, else by the address of our document, else registered there. Never one of another issuer's.

        `lasting`: a person is to be sent there with it. A registration that the authorization server forgot would show them an error page
        of which the gateway never hears, so it is asked about and made anew first.
        """
        if terms.client_id:
            method = terms.method or ("private_key_jwt" if not terms.secret and "private_key_jwt" in at.methods else "")
            return Client(at.issuer, terms.client_id, method or _method(terms.secret, at.methods), terms.secret)
        if at.documents and self._own.document.startswith("https://"):
            return self._own.described(at)
        registered = await self._vault.client(tenant, at.issuer)
        if registered is not None and lasting and not await self._is_good(tenant, at, registered):
            await self.forget(tenant, at.issuer)
            registered = None
        if registered is None and at.registration_endpoint:
            registered = await self._registered(tenant, at)
        if registered is None:
            raise UpstreamFault("The authorization server registers nobody; an operator has to set upstream.auth.client_id", at.issuer)
        return registered

    async def of_credential(self, key: CredentialKey, held: Credential, known: Sequence[AuthTerms], at: AuthorizationServer) -> Client:
        """As whom the gateway was given a credential. `known`: terms of the entries that it opens."""
        for terms in known:
            if terms.client_id == held.client_id:
                return await self.of(key.tenant, terms, at)
        if held.client_id in (self._own.document, self._own.keyed):
            return self._own.described(at)
        registered = await self._vault.client(key.tenant, at.issuer)
        return registered if registered is not None and registered.client_id == held.client_id else Client(at.issuer, held.client_id)

    def was_good(self, tenant: str, client: Client) -> None:
        """The authorization server took it a moment ago."""
        self._known.put((tenant, client.issuer), client.client_id, KNOWN_SECONDS)

    async def refused(self, tenant: str, at: AuthorizationServer, refused: OAuthRefused) -> None:
        """Forgets a registration that the authorization server does not know."""
        if refused.error in FORGOTTEN:
            await self.forget(tenant, at.issuer)

    async def forget(self, tenant: str, issuer: str) -> None:
        self._known.drop((tenant, issuer))
        await self._vault.forget_client(tenant, issuer)

    async def _is_good(self, tenant: str, at: AuthorizationServer, client: Client) -> bool:
        if not at.registration_endpoint or self._known.get((tenant, at.issuer)) == client.client_id:
            return True
        if not await self._requests.knows(at, client):
            return False
        self.was_good(tenant, client)
        return True

    async def _registered(self, tenant: str, at: AuthorizationServer) -> Client:
        """One registration for all processes: a consent is good for the client that asked for it."""
        async with self._vault.alone(("client", tenant, at.issuer)):
            known = await self._vault.client(tenant, at.issuer)
            if known is None:
                known = await self._requests.register(at)
                await self._vault.keep_client(tenant, known)
                self.was_good(tenant, known)
            return known


def _method(secret: str, methods: Sequence[str]) -> str:
    if not secret:
        return "none"
    return "client_secret_post" if "client_secret_post" in methods and "client_secret_basic" not in methods else "client_secret_basic"
