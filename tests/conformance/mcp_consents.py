"""A person who consents to whatever the MCP kit's authorization servers ask, and the gateway as the client that they know."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from jose import jwt

from adapters.contract import ConsentNeeded, UpstreamFault
from adapters.oauth.assertions import identity_key
from adapters.oauth.authorized import Consent, UpstreamOAuth
from adapters.oauth.grants import OwnClient, consent_url
from adapters.oauth.options import read_auth_options
from adapters.upstream.egress import Egress
from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.vault.credentials import ClientRegistration, Credential, CredentialVault
from tests.fakes.vault import MemoryVault

DOCUMENT = "https://conformance-test.local/client-metadata.json"  # what the kit takes for a client ID metadata document
REDIRECT = "http://localhost:3000/callback"
VERIFIER, STATE = "v" * 43, "state-of-the-driver"
MACHINE = "auth/client-credentials-"


class Browser:
    """Consents: each is given as soon as somebody visits."""

    def __init__(self, own: OwnClient) -> None:
        self._own = own
        self._open: list[Consent] = []

    async def request_consent(self, consent: Consent) -> ConsentNeeded:
        self._open.append(consent)
        return ConsentNeeded("https://gateway.example/connect", str(len(self._open)), consent.server)

    async def wait(self, consent_id: str, seconds: float) -> bool:
        return False

    async def visit(self, oauth: UpstreamOAuth) -> None:
        """Raises UpstreamFault."""
        consent = self._open.pop()
        asked = consent.authorization_params(STATE, VERIFIER)
        async with httpx.AsyncClient() as client:
            page = await client.get(consent_url(consent.at, self._own, consent.client.client_id, asked))
        answer = dict(parse_qsl(urlsplit(page.headers.get("location", "")).query))
        if answer.pop("state", "") != STATE:
            raise UpstreamFault("The authorization server does not send the person back", f"status {page.status_code}")
        await oauth.complete_consent(consent, VERIFIER, answer)


def terms(scenario: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """`upstream.auth` as an operator would set it up for a scenario."""
    known = {name: context[name] for name in ("client_id", "client_secret") if name in context}
    if "valid_jwt" in context:
        return {"account": "service", "grant": "jwt-bearer", "assertion": context["valid_jwt"], **known}
    if "idp_id_token" in context:
        return {"grant": "id-jag", "provider": {"issuer": context["idp_issuer"], "client_id": context["idp_client_id"]}, **known}
    return {"account": "service", **known} if scenario.startswith(MACHINE) else known


def client(context: Mapping[str, Any]) -> OwnClient:
    """Signs with the kit's key, where there is one."""
    pem = context.get("private_key_pem")
    if pem is None:
        sign = SigningKeys.open(Path(tempfile.mkdtemp())).sign
    else:

        def sign(claims: Mapping[str, Any], typ: str) -> str:
            return str(jwt.encode(dict(claims), pem, algorithm=context.get("signing_algorithm", "ES256"), headers={"typ": typ}))

    return OwnClient(DOCUMENT, f"{DOCUMENT}?keyed", "https://conformance-test.local/jwks.json", REDIRECT, sign, time.time)


def oauth(egress: Egress, own: OwnClient, browser: Browser, vault: CredentialVault) -> UpstreamOAuth:
    return UpstreamOAuth(egress, own, vault, browser, lambda upstream: read_auth_options(upstream["auth"], lambda secret: secret))


async def vault(context: Mapping[str, Any], person: Principal) -> CredentialVault:
    """With the person's connection to their identity provider, where the kit made one."""
    made = MemoryVault()
    if "idp_id_token" in context:
        held = Credential("unused", context["idp_client_id"], id_token=context["idp_id_token"])
        await made.write(identity_key(person, ClientRegistration(context["idp_issuer"], context["idp_client_id"])), held)
    return made
