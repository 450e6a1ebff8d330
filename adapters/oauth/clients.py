"""Who the gateway is at each authorization server: as its operator says, by the address of a document, or by a registration of its own."""

from collections.abc import Sequence
from typing import Final

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import AuthorizationServer
from adapters.oauth.grants import UNKNOWN_CLIENT_ERRORS, OAuthRefused, OAuthRequests, OwnClient
from adapters.oauth.options import AuthOptions
from policies.cache import BoundedCache
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, CredentialVault

GOOD_SECONDS: Final = 600.0  # for which a registration that was good is not asked about
GOOD_MAX: Final = 4096


class OwnClients:
    """`own.now` counts seconds since 1970."""

    def __init__(self, own_client: OwnClient, requests: OAuthRequests, vault: CredentialVault) -> None:
        self._own_client = own_client
        self._requests = requests
        self._vault = vault
        self._good_until_expiry: BoundedCache[tuple[str, str], str] = BoundedCache(GOOD_MAX, own_client.now)

    async def client_for(
        self, tenant: str, auth_options: AuthOptions, authorization_server: AuthorizationServer, for_consent: bool = False
    ) -> ClientRegistration:
        """Set up by the operator, else by the address of our document, else registered there. Never one of another issuer's.

        `lasting`: a person is to be sent there with it. A registration that the authorization server forgot would show them an error page
        of which the gateway never hears, so it is asked about and made anew first.
        """
        if auth_options.client_id:
            method = auth_options.method or (
                "private_key_jwt" if not auth_options.secret and "private_key_jwt" in authorization_server.methods else ""
            )
            return ClientRegistration(
                authorization_server.issuer,
                auth_options.client_id,
                method or _default_method(auth_options.secret, authorization_server.methods),
                auth_options.secret,
            )
        if authorization_server.documents and self._own_client.document_url.startswith("https://"):
            return self._own_client.client_by_document(authorization_server)
        registered = await self._vault.find_client(tenant, authorization_server.issuer)
        if registered is not None and for_consent and not await self._is_good(tenant, authorization_server, registered):
            await self.delete_registration(tenant, authorization_server.issuer)
            registered = None
        if registered is None and authorization_server.registration_endpoint:
            registered = await self._register_once(tenant, authorization_server)
        if registered is None:
            raise UpstreamFault(
                "The authorization server registers nobody; an operator has to set upstream.auth.client_id", authorization_server.issuer
            )
        return registered

    async def client_of_credential(
        self, key: CredentialKey, credential: Credential, known_options: Sequence[AuthOptions], authorization_server: AuthorizationServer
    ) -> ClientRegistration:
        """As whom the gateway was given a credential. `known`: terms of the entries that it opens."""
        for terms in known_options:
            if terms.client_id == credential.client_id:
                return await self.client_for(key.tenant, terms, authorization_server)
        if credential.client_id in (self._own_client.document_url, self._own_client.keyed_document_url):
            return self._own_client.client_by_document(authorization_server)
        registered = await self._vault.find_client(key.tenant, authorization_server.issuer)
        return (
            registered
            if registered is not None and registered.client_id == credential.client_id
            else ClientRegistration(authorization_server.issuer, credential.client_id)
        )

    def mark_good(self, tenant: str, client: ClientRegistration) -> None:
        """The authorization server took it a moment ago."""
        self._good_until_expiry.put((tenant, client.issuer), client.client_id, GOOD_SECONDS)

    async def handle_refusal(self, tenant: str, authorization_server: AuthorizationServer, refused: OAuthRefused) -> None:
        """Forgets a registration that the authorization server does not know."""
        if refused.error in UNKNOWN_CLIENT_ERRORS:
            await self.delete_registration(tenant, authorization_server.issuer)

    async def delete_registration(self, tenant: str, issuer: str) -> None:
        self._good_until_expiry.drop((tenant, issuer))
        await self._vault.delete_client(tenant, issuer)

    async def _is_good(self, tenant: str, authorization_server: AuthorizationServer, client: ClientRegistration) -> bool:
        if (
            not authorization_server.registration_endpoint
            or self._good_until_expiry.get((tenant, authorization_server.issuer)) == client.client_id
        ):
            return True
        if not await self._requests.is_registered(authorization_server, client):
            return False
        self.mark_good(tenant, client)
        return True

    async def _register_once(self, tenant: str, authorization_server: AuthorizationServer) -> ClientRegistration:
        """One registration for all processes: a consent is good for the client that asked for it."""
        async with self._vault.lease(("client", tenant, authorization_server.issuer)):
            known = await self._vault.find_client(tenant, authorization_server.issuer)
            if known is None:
                known = await self._requests.register(authorization_server)
                await self._vault.write_client(tenant, known)
                self.mark_good(tenant, known)
            return known


def _default_method(secret: str, methods: Sequence[str]) -> str:
    if not secret:
        return "none"
    return "client_secret_post" if "client_secret_post" in methods and "client_secret_basic" not in methods else "client_secret_basic"
