"""Calls all MCP servers through one interface: over HTTP, as configured commands, as HTTP APIs, the sandbox, or the gateway's own."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.pool import McpPool, speaks_initialize
from adapters.mcp_client.probe import Probe
from adapters.mcp_client.redaction import add_server_words, scrub_fault, scrub_listener, scrub_peer
from adapters.mcp_client.wire.messages import ClientNotification, McpAnswer, McpRefused, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter, McpListener
from adapters.oauth.authorized import CredentialRequest, UpstreamOAuth, credential_request_of, with_headers
from adapters.openapi.document import ApiTools
from adapters.openapi.tools import OPENAPI_KIND, OpenApiServers
from adapters.redaction.secrets import redactor_for
from adapters.sandbox.calculation import SANDBOX_KIND as SANDBOX
from adapters.sandbox.tools import SandboxTools
from adapters.upstream.call_redaction import CallRedactor
from registry.cards.card import BUILT_IN_KIND, Registration

if TYPE_CHECKING:
    from adapters.mcp_client.stdio import StdioServers  # loaded only where a command is configured

SILENT_KINDS: Final = (OPENAPI_KIND, SANDBOX, BUILT_IN_KIND)  # servers that announce nothing
STDIO_PREFIX: Final = "stdio:"
AUTH_OPTION: Final = "auth"
COMMANDS_TENANT: Final = "default"  # the tenant of the configuration file


class BuiltInServer(Protocol):
    """A server of the gateway's own (gateway/ingress/built_in). Its tools act with the rights of the call's Grant."""

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Answers one request. Raises McpRefused, and the gateway's own refusals."""
        ...


class ServerListChanges:
    """Announces to its subscribers, by tenant and name, that a server has announced a changed list in any session."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[str, str], None]] = []

    def subscribe(self, subscriber: Callable[[str, str], None]) -> None:
        self._subscribers.append(subscriber)

    def announce(self, server: str) -> None:
        """Calls all subscribers. `server` is tenant|name."""
        tenant, name = server.split("|", 1)
        for subscriber in self._subscribers:
            subscriber(tenant, name)


class ToolServerClient:
    """Calls servers by their kind. Servers with `upstream.auth` get credentials from `oauth`.

    `find_built_in` returns the gateway's own server of a name. It is called for each request, since these servers are built late.
    """

    def __init__(
        self,
        pool: McpPool,
        commands: "StdioServers | None" = None,
        apis: OpenApiServers | None = None,
        oauth: UpstreamOAuth | None = None,
        sandbox: SandboxTools | None = None,
        *,
        find_built_in: Callable[[str], BuiltInServer] | None = None,
    ) -> None:
        self._pool = pool
        self._oauth = oauth
        self._apis = apis
        self._commands = commands
        self._sandbox = sandbox
        self._find_built_in = find_built_in

    @property
    def ejected_count(self) -> int:
        """The number of MCP servers at URLs with an open breaker."""
        return self._pool.ejected_count

    async def probe(self, name: str, url: str, headers: Mapping[str, str], credential_request: CredentialRequest | None = None) -> Probe:
        """Probes a server. Raises UpstreamFault and EgressRefused, and ConsentNeeded if the request has a Grant."""
        if url.startswith(STDIO_PREFIX):
            return await self._require_commands().probe(name)
        initialize = credential_request is not None and speaks_initialize(credential_request.upstream)
        redactor = CallRedactor(headers)

        async def probe_with(own: Mapping[str, str]) -> Probe:
            redactor.add_headers(own)
            return await self._pool.probe(url, {**headers, **own}, initialize=initialize)

        try:
            if self._oauth is None or credential_request is None or AUTH_OPTION not in credential_request.upstream:
                return await probe_with({})
            return await self._oauth.send_authorized(credential_request, probe_with)
        except UpstreamFault as fault:
            redactor.redact_fault(fault)
            raise

    def error_lines(self, target: Registration) -> list[str]:
        """The last lines of standard error of a command, in this process of the gateway; empty for other servers.

        A command that never started has no URL.
        """
        is_command = self._commands is not None and target.tenant == COMMANDS_TENANT and target.url in (STDIO_PREFIX, "")
        return self._commands.error_lines(target.name) if self._commands is not None and is_command else []

    async def read(self, source: str, headers: Mapping[str, str], known: str = "") -> ApiTools:
        """The HTTP API of an OpenAPI document. Raises UpstreamFault, EgressRefused and DocumentUnchanged (see OpenApiServers.read)."""
        try:
            return await self._require_apis().read(source, headers, known)
        except UpstreamFault as fault:
            CallRedactor(headers).redact_fault(fault)
            raise

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Sends one request. Raises UpstreamFault, McpRefused, ConsentNeeded and EgressRefused; a result with isError is returned."""
        try:
            if not call.target.upstream:
                return await self._dispatch(call, request)
            if self._oauth is not None and AUTH_OPTION in call.target.upstream:
                return await self._oauth.send_authorized(
                    credential_request_of(call), lambda own: self._call_without_secrets(with_headers(call, own), request)
                )
            return await self._call_without_secrets(call, request)
        except McpRefused as refused:
            add_server_words(refused, call.target.url)
            raise

    async def _call_without_secrets(self, call: Call, request: McpRequest) -> McpAnswer:
        """Sends a request and masks the call's secrets in the response and in faults."""
        scrubber = redactor_for(call.headers)
        if scrubber is None:
            return await self._dispatch(call, request)
        try:
            answer = await self._dispatch(call, replace(request, peer=scrub_peer(request.peer, scrubber)))
        except (UpstreamFault, McpRefused) as error:
            scrub_fault(error, scrubber)
            raise
        return McpAnswer(scrubber.redact_bytes(answer.result))

    def _dispatch(self, call: Call, request: McpRequest) -> Awaitable[McpAnswer]:
        kind = call.target.kind
        if kind == OPENAPI_KIND:
            return self._require_apis().call(call, request)
        if self._sandbox is not None and kind == SANDBOX:
            return self._sandbox.call(call, request)
        if self._find_built_in is not None and kind == BUILT_IN_KIND:
            return self._find_built_in(call.target.name).call(call, request)
        if call.target.url.startswith(STDIO_PREFIX):
            return self._require_commands().call(call, request)
        return self._pool.call(call, request)

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, session: str = "") -> None:
        """Sends changes to `listener` until the server ends the stream regularly; cancel it to stop. Raises as `call` does.

        The call's deadline only bounds the acknowledgement. `session` is the client's session, as in McpRequest.
        """
        if call.target.kind in SILENT_KINDS:
            await listener.on_acknowledged(ListenFilter())
            await asyncio.Event().wait()  # it never sends anything, and never ends a stream
        elif call.target.url.startswith(STDIO_PREFIX):
            await self._require_commands().listen(call, wanted, listener, session)
        elif self._oauth is not None and AUTH_OPTION in call.target.upstream:
            await self._oauth.send_authorized(
                credential_request_of(call), lambda own: self._listen_without_secrets(with_headers(call, own), wanted, listener, session)
            )
        else:
            await self._listen_without_secrets(call, wanted, listener, session)

    async def _listen_without_secrets(self, call: Call, wanted: ListenFilter, listener: McpListener, session: str) -> None:
        scrubber = redactor_for(call.headers) if call.target.upstream else None
        await self._pool.listen(call, wanted, scrub_listener(listener, scrubber) if scrubber else listener, session)

    async def watch(self, target: Registration, headers: Mapping[str, str], changed: Callable[[], None]) -> None:
        """Calls `changed` whenever the server announces a changed list, until the stream breaks (UpstreamFault).

        Returns where the server announces no changes. `headers` are the gateway's own credentials, as for `probe`.
        """
        if target.kind in SILENT_KINDS:
            return
        if self._oauth is not None and AUTH_OPTION in target.upstream:
            if not self._oauth.has_own_account(target.upstream):
                return  # personal accounts are not used without their person
            approach = CredentialRequest(target.tenant, target.name, target.url, target.upstream, None)
            await self._oauth.send_authorized(approach, lambda own: self._watch_without_secrets(target, {**headers, **own}, changed))
        elif target.url.startswith(STDIO_PREFIX):
            await self._require_commands().watch(target.name, changed)
        else:
            await self._watch_without_secrets(target, headers, changed)

    async def _watch_without_secrets(self, target: Registration, headers: Mapping[str, str], changed: Callable[[], None]) -> None:
        try:
            await self._pool.watch(target, headers, changed)
        except UpstreamFault as fault:
            CallRedactor(headers).redact_fault(fault)
            raise

    def notify(self, owner: str, session: str, notification: ClientNotification) -> None:
        """Passes on a notification of a client of the legacy era to its sessions' servers, without waiting."""
        self._pool.notify(owner, session, notification)
        if self._commands is not None:
            self._commands.notify(owner, session, notification)

    async def close_client_session(self, owner: str, session: str) -> None:
        """Closes a client session's sessions with servers; `owner` is tenant|issuer|subject."""
        await self._pool.close_client_session(owner, session)
        if self._commands is not None:
            await self._commands.close_client_session(owner, session)

    async def sweep(self) -> None:
        """Closes idle sessions; the caller calls it about once a minute."""
        await self._pool.sweep()
        if self._commands is not None:
            await self._commands.sweep()

    async def close(self) -> None:
        await self._pool.close()
        if self._sandbox is not None:
            await self._sandbox.close()
        if self._commands is not None:
            await self._commands.close()

    def _require_apis(self) -> OpenApiServers:
        if self._apis is None:
            raise UpstreamFault("HTTP APIs are not supported by this gateway")
        return self._apis

    def _require_commands(self) -> "StdioServers":
        if self._commands is None:
            raise UpstreamFault("No command is configured for this server")
        return self._commands
