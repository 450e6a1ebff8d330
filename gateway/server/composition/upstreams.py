"""Builds the clients of agents, MCP servers and authorization servers, and the sources of registrations."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from adapters.a2a_client.push_wakeups import PushWakeups
from adapters.a2a_client.wire.transport import Transport
from adapters.catalog import AdapterCatalog
from adapters.mcp_client.pool import ERA_OPTION, INITIALIZE, McpPool
from adapters.oauth.authorized import UpstreamOAuth
from adapters.oauth.grants import OwnClient
from adapters.oauth.options import AuthOptions, read_auth_options
from adapters.openapi.tools import OpenApiServers
from adapters.tool_servers import ServerListChanges, ToolServerClient
from adapters.upstream.egress import Egress
from gateway.calls.consent.account_connections import AccountConnections
from gateway.registration.card_source import CardSource, own_addresses
from gateway.registration.inspection import InspectionSources
from gateway.server.composition.built_in.servers import BuiltInServers
from gateway.server.drain import Lifecycle
from gateway.server.settings import (
    McpServerSettings,
    Settings,
    command_environment,
    environment_value,
    resolve_credential,
    resolve_text,
)
from gateway.timeouts import Timeouts
from policies.keys.pinned import DetachedSignatureVerifier
from policies.keys.signing import SigningKeys
from policies.vault.credentials import CredentialVault
from policies.vault.envelope import EnvelopeEncryption
from policies.vault.wrapping_keys import VaultKeys, read_configured_keys

if TYPE_CHECKING:
    from adapters.mcp_client.stdio import StdioServers

ENVELOPE = 1 << 20  # bytes of an answer beside its stored content


def build_own_client(settings: Settings, keys: SigningKeys) -> OwnClient:
    """Builds the gateway's own OAuth client for authorization servers."""
    url = settings.public_url
    documents = (f"{url}/.well-known/oauth-client", f"{url}/.well-known/oauth-client-keys", f"{url}/.well-known/jwks.json")
    return OwnClient(*documents, f"{url}/connect/callback", keys.sign, time.time, url)


def build_envelope(settings: Settings) -> EnvelopeEncryption:
    """Builds the encryption of secrets in database rows. Raises KeysUnusable."""
    configured_keys = read_configured_keys(settings.vault.keys, environment_value)
    return EnvelopeEncryption(VaultKeys.open(settings.home, configured_keys))


def build_oauth(egress: Egress, own_client: OwnClient, vault: CredentialVault, connections: AccountConnections) -> UpstreamOAuth:
    """Builds the OAuth client for upstreams that require OAuth."""

    def terms(upstream: Mapping[str, Any]) -> AuthOptions | None:
        return read_auth_options(upstream["auth"], resolve_credential) if "auth" in upstream else None

    return UpstreamOAuth(egress, own_client, vault, connections, terms)


def build_mcp_tools(
    settings: Settings,
    egress: Egress,
    oauth: UpstreamOAuth,
    timeouts: Timeouts,
    built_in: BuiltInServers,
    *,
    changes: ServerListChanges,
) -> ToolServerClient:
    """Builds the client of MCP servers at URLs, MCP servers that are commands, OpenAPI servers and built-in servers."""
    pool = McpPool(egress, time.monotonic, initialize_seconds=timeouts.initialize_probe, on_list_changed=changes.announce)
    commands, apis = _build_commands(settings, timeouts), OpenApiServers(egress, time.monotonic)
    sandbox = built_in.sandbox.tools if built_in.sandbox else None
    return ToolServerClient(pool, commands, apis, oauth, sandbox, find_built_in=built_in.find)


def _build_commands(settings: Settings, timeouts: Timeouts) -> "StdioServers | None":
    """Builds the client of the configured commands; None if there are none. Only then its library is loaded."""
    seeds = [seed for seed in settings.servers if seed.command]
    if not seeds:
        return None
    from adapters.mcp_client.stdio import Command, StartTimeouts, StdioServers

    def command(seed: McpServerSettings) -> Command:
        environment = command_environment(seed)
        era = seed.upstream.get(ERA_OPTION) == INITIALIZE
        return Command(seed.command, tuple(seed.args), environment, tuple(environment[name] for name in seed.env), era)

    commands = {seed.name: command(seed) for seed in seeds}
    start = StartTimeouts(timeouts.command_start, timeouts.discover_probe)
    return StdioServers(commands, time.monotonic, settings.limits.tool_timeout, start=start)


def catalog(
    settings: Settings, egress: Egress, lifecycle: Lifecycle, push_wakeups: PushWakeups, tools: ToolServerClient, *, oauth: UpstreamOAuth
) -> AdapterCatalog:
    """Builds the adapters. An answer of an A2A agent may have the stored bytes of a turn plus ENVELOPE bytes."""
    limit = settings.limits.turn_bytes + ENVELOPE
    grpc = grpc_transport_factory(egress, lifecycle, limit)
    return AdapterCatalog(egress, grpc, push_wakeups, tools, oauth, answer_limit=limit, read_option=resolve_text)


def grpc_transport_factory(egress: Egress, lifecycle: Lifecycle, limit: int) -> Callable[[], Transport]:
    """Returns a factory of the gRPC transport, which loads the libraries at the first call and is closed after the turns.

    `limit` bounds one message of an agent, in bytes.
    """

    def build_transport() -> Transport:
        from adapters.a2a_client.grpc import GrpcTransport

        transport = GrpcTransport(egress, time.monotonic, limit=limit)
        lifecycle.on_stop(transport.close, after_turns=True)
        return transport

    return build_transport


def build_sources(settings: Settings, egress: Egress, tools: ToolServerClient, catalog: AdapterCatalog) -> InspectionSources:
    """Builds the sources of registrations, and the verifier of card signatures."""
    keys = DetachedSignatureVerifier(egress.fetch, settings.cards.key_origins)
    gateway_addresses = own_addresses((settings.public_url, settings.public_grpc), settings.host, (settings.port, settings.grpc_port))
    return InspectionSources(
        CardSource(egress, keys, upstream_headers, gateway_addresses, signer=catalog.signer), tools, keys, upstream_headers, catalog
    )


def upstream_headers(upstream: Mapping[str, Any]) -> Mapping[str, str]:
    """Returns the `headers` of an entry's `upstream`, with `env:NAME` values read from the environment."""
    return {name: resolve_text(value) for name, value in upstream.get("headers", {}).items()}
