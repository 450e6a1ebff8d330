"""Builds the verification of credentials: of agents as clients, and beside a token."""

import time
from urllib.parse import urlsplit

from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.server.composition.process import Gateway
from policies.ids import now_us
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.dpop import DpopVerifier
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.tickets import Tickets


def build_client_authentication(gateway: Gateway) -> ClientAuthentication:
    """Builds the client authentication of agents, which all protocol servers use."""
    url = gateway.settings.public_url
    assertions = ClientAssertionVerifier((url, f"{url}/oauth/token"), time.time)
    return ClientAuthentication(gateway.registry, assertions, ReplayGuard(gateway.database, now_us))


def build_proofs(gateway: Gateway, clients: ClientAuthentication) -> RequestProofs:
    """Builds the verification of credentials beside a token: DPoP proofs and tickets."""
    url, possession = gateway.settings.public_url, DpopVerifier(gateway.keys, ReplayGuard(gateway.database, now_us), time.time)
    grpc_url = f"{urlsplit(url).scheme}://{gateway.settings.public_grpc}"
    return RequestProofs(clients, Tickets(gateway.database, time.time), possession, public_url=url, grpc_url=grpc_url)
