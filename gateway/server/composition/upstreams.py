"""Makes what leads to agents and servers, and to their cards."""

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from adapters.a2a_client.push_wakeups import Doorbells
from adapters.a2a_client.wire.transport import Transport
from adapters.catalog import Catalog
from adapters.mcp_client.pool import ERA, INITIALIZE, McpPool
from adapters.oauth.authorized import McpOAuth
from adapters.oauth.grants import OwnClient
from adapters.oauth.options import AuthTerms, auth_terms
from adapters.openapi.tools import OpenApi
from adapters.tool_servers import Commands, McpTools
from adapters.upstream.egress import Egress
from gateway.calls.consent.account_connections import Connections
from gateway.registration.card_source import CardSource, own_places
from gateway.registration.onboarding import Sources
from gateway.server.settings import ServerSeed, Settings, command_environment, from_environment, given_text, upstream_headers, variable
from policies.keys.pinned import PinnedKeys
from policies.keys.signing import SigningKeys
from policies.vault.credentials import Vault
from policies.vault.envelope import Envelope
from policies.vault.wrapping_keys import VaultKeys, given_keys

Closing = list[Callable[[], Coroutine[Any, Any, None]]]  # what is awaited when the gateway stops
ENVELOPE = 1 << 20  # bytes that may wrap what is kept of an answer


def own_client(settings: Settings, keys: SigningKeys) -> OwnClient:
    """Who the gateway is to authorization servers."""
    url = settings.public_url
    documents = (f"{url}/.well-known/oauth-client", f"{url}/.well-known/oauth-client-keys", f"{url}/.well-known/jwks.json")
    return OwnClient(*documents, f"{url}/connect/callback", keys.sign, time.time, url)


def envelope(settings: Settings) -> Envelope:
    """What seals secrets in rows. Raises KeysUnusable."""
    given = given_keys(settings.vault.keys, variable)
    return Envelope(VaultKeys.open(settings.home, given))


def oauth(egress: Egress, own: OwnClient, vault: Vault, connections: Connections) -> McpOAuth:
    """What gets credentials for servers that want OAuth."""

    def terms(upstream: Mapping[str, Any]) -> AuthTerms | None:
        return auth_terms(upstream["auth"], given_text) if "auth" in upstream else None

    return McpOAuth(egress, own, vault, connections, terms)


def mcp_tools(settings: Settings, egress: Egress, oauth: McpOAuth) -> McpTools:
    """To servers by address, and to those that are commands."""
    return McpTools(McpPool(egress, time.monotonic), _commands(settings), OpenApi(egress, time.monotonic), oauth)


def _commands(settings: Settings) -> Commands | None:
    """Servers that are commands of the configuration file; the client library is loaded only where there are any."""
    seeds = [seed for seed in settings.servers if seed.command]
    if not seeds:
        return None
    from adapters.mcp_client.stdio import Command, StdioServers

    def command(seed: ServerSeed) -> Command:
        given = command_environment(seed)
        era = seed.upstream.get(ERA) == INITIALIZE
        return Command(seed.command, tuple(seed.args), given, tuple(given[name] for name in seed.env), era)

    return StdioServers({seed.name: command(seed) for seed in seeds}, time.monotonic, settings.limits.tool_timeout)


def catalog(settings: Settings, egress: Egress, parting: Closing, others: tuple[Doorbells, McpTools, McpOAuth]) -> Catalog:
    """The adapters. One answer of an A2A agent may be as large as what is kept of a turn, and an envelope."""
    limit = settings.limits.turn_bytes + ENVELOPE
    return Catalog(egress, grpc_transport(egress, parting, limit), *others, answer_limit=limit).reading(from_environment)


def grpc_transport(egress: Egress, parting: Closing, limit: int) -> Callable[[], Transport]:
    """To agents over gRPC: its libraries are loaded when the first is called, and what closes it joins `parting`.

    `limit`: bytes of one message of an agent.
    """

    def made() -> Transport:
        from adapters.a2a_client.grpc import GrpcTransport

        transport = GrpcTransport(egress, time.monotonic, limit=limit)
        parting.append(transport.close)
        return transport

    return made


def sources(settings: Settings, egress: Egress, tools: McpTools, catalog: Catalog) -> Sources:
    """Where registrations come from, and who is trusted to sign cards."""
    keys = PinnedKeys(egress.fetch, settings.cards.key_origins)
    ours = own_places((settings.public_url, settings.public_grpc), settings.host, (settings.port, settings.grpc_port))
    return Sources(CardSource(egress, keys, upstream_headers, ours, signer=catalog.signer), tools, keys, upstream_headers, catalog)
