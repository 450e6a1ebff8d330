"""The gateway's client registration at each authorization server: the operator's, a client metadata document, or dynamic registration."""

from collections.abc import Sequence
from typing import Final

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import AuthorizationServer
from adapters.oauth.grants import UNKNOWN_CLIENT_ERRORS, OAuthRefused, OAuthRequests, OwnClient
from adapters.oauth.options import AuthOptions
from policies.cache import BoundedCache
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, CredentialVault

GOOD_SECONDS: Final = 600.0  # for which a valid registration is not checked again
GOOD_MAX: Final = 4096


class OwnClients:
    """Client registrations. `own_client.now` counts seconds since 1970."""

    def __init__(self, own_client: OwnClient, requests: OAuthRequests, vault: CredentialVault) -> None:
        self._own_client = own_client
        self._requests = requests
        self._vault = vault
        self._good_until_expiry: BoundedCache[tuple[str, str], str] = BoundedCache(GOOD_MAX, own_client.now)

    async def client_for(
        self, tenant: str, auth_options: AuthOptions, authorization_server: AuthorizationServer, for_consent: bool = False
    ) -> ClientRegistration:
        """The configured client, else the client metadata document, else a dynamic registration. Raises UpstreamFault.

        `for_consent`: a person will be redirected there with it. If the authorization server lost the registration, the person would only
        see its
        error page, so the registration is checked first, and replaced if it is lost.
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
                "The authorization server does not register clients; an operator has to set upstream.auth.client_id",
                authorization_server.issuer,
            )
        return registered

    async def client_of_credential(
        self, key: CredentialKey, credential: Credential, known_options: Sequence[AuthOptions], authorization_server: AuthorizationServer
    ) -> ClientRegistration:
        """The client that a credential was issued to. `known_options`: of the entries that the credential is for."""
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
        """Notes that the authorization server just accepted the client."""
        self._good_until_expiry.put((tenant, client.issuer), client.client_id, GOOD_SECONDS)

    async def handle_refusal(self, tenant: str, authorization_server: AuthorizationServer, refused: OAuthRefused) -> None:
        """Deletes a registration that the authorization server does not know."""
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
        """Registers once for all processes: a consent is bound to the client that requested it."""
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
