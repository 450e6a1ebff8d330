"""Authenticates requests of all protocols: own host, allowed origin, and one bearer token made for this resource."""

from collections.abc import Collection
from urllib.parse import urlsplit

from gateway.ingress.http.asgi import Scope, header
from gateway.ingress.http.cors import Cors
from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.http.rejected_credentials import LogRejection
from gateway.telemetry.spans import note_tenant
from policies.callers import Caller, CallerResolver
from policies.delegation.kills import Killed
from policies.tokens.dpop import INVALID_TOKEN, ProofRefused
from policies.tokens.verifier import TokenRefused

TICKET_HEADER = b"interlock-ticket"
SESSION_CALLER_KEY = "interlock.session_caller"  # in the scope of a request that the console makes; no client can set members of a scope
PROTOCOLS_KEY = "interlock.protocols"  # in the scope of a request to the framework: serves requests of all protocols, as clients send them
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class MetricsForbidden(Exception):
    """The caller is known, and may not read the metrics."""

    def __init__(self) -> None:
        super().__init__("The metrics need the permission audit:read, or the token of telemetry.metrics_token.")


class WrongHost(Exception):
    """The Host header names a host that is not the gateway's."""


class ForeignOrigin(Exception):
    """A browser sent the request from a page of another origin."""


def own_hosts(public_url: str, host: str, port: int) -> frozenset[str]:
    """Returns the Host values that name the gateway.

    These are the public host, and loopback names where the gateway listens on loopback or its public host is loopback.
    """
    public = urlsplit(public_url).netloc.lower()
    hosts = {public, public.removesuffix(":80" if public_url.startswith("http:") else ":443")}
    if host in {"127.0.0.1", "::1", "localhost"} or urlsplit(public_url).hostname in {"127.0.0.1", "::1", "localhost"}:
        hosts |= {f"{name}:{port}" for name in LOOPBACK_HOSTS}
    return frozenset(hosts)


class RequestAuthentication:
    """Checks host, origin, token and proof of a request, and resolves its caller."""

    def __init__(
        self,
        callers: CallerResolver,
        public_url: str,
        hosts: Collection[str],
        log_rejection: LogRejection,
        proofs: RequestProofs,
        *,
        cors: Cors | None = None,
        default_scope: str = "",
    ) -> None:
        """`default_scope` is what a 401 tells clients to ask for; empty where people do not sign in at the gateway."""
        self.cors = cors
        self._callers = callers
        self._proofs = proofs
        self._log_rejection = log_rejection
        self._public_url = public_url
        self._default_scope = default_scope
        self._hosts = frozenset(hosts)
        self._origins = frozenset({f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")})
        self._audiences: dict[str, tuple[str, ...]] = {}

    def check_host(self, scope: Scope) -> None:
        """Raises WrongHost when the Host header is not the gateway's, and BadHeader when it is sent twice."""
        host = header(scope, b"host")
        if host is None or (host not in self._hosts and host.lower() not in self._hosts):
            raise WrongHost

    def check_origin(self, scope: Scope) -> None:
        """Accepts requests without an origin, and of the gateway's own origin. Raises ForeignOrigin or BadHeader."""
        origin = header(scope, b"origin")
        if origin is not None and origin.lower() not in self._origins:
            raise ForeignOrigin

    def _check_client_origin(self, scope: Scope) -> None:
        """Accepts requests without an origin, of the gateway's own origin and of those that CORS allows.

        Raises ForeignOrigin or BadHeader.
        """
        origin = header(scope, b"origin")
        if origin is not None and origin.lower() not in self._origins and not (self.cors and self.cors.allows(origin)):
            raise ForeignOrigin

    async def authenticate(self, scope: Scope, resource: str) -> Caller:
        """Returns the caller of a request. `resource` is the path below the public URL that a hop token must be made for.

        A request that the console makes comes from within the process, with the caller of the browser's session. Raises TokenRefused,
        WrongHost, ForeignOrigin and BadHeader.
        """
        self.check_host(scope)
        self._check_client_origin(scope)
        session_caller: Caller | None = scope.get(SESSION_CALLER_KEY)
        if session_caller is not None:
            note_tenant(session_caller.principal.tenant)
            return session_caller
        return await self.authenticate_header(header(scope, b"authorization"), resource, scope)

    async def authenticate_header(self, authorization: str | None, resource: str, scope: Scope | None = None) -> Caller:
        """Returns the caller by the value of `Authorization`, and by the ticket or proof of the request in `scope`.

        Raises TokenRefused, Killed and BadHeader; the log has the reason.
        """
        try:
            if scope is not None and (ticket := header(scope, TICKET_HEADER)) is not None:
                return await self._authenticate_ticket(scope, ticket)
            if authorization is None:
                raise TokenRefused("missing")
            scheme, _, token = authorization.partition(" ")
            bound = scheme.lower() == "dpop"
            if not (bound or scheme.lower() == "bearer") or not token or " " in token or "," in token:
                raise TokenRefused("malformed")
            caller = await self._callers.authenticate(token, self._audiences_of(resource))
            note_tenant(caller.principal.tenant)
            if caller.thumbprint or bound:
                await self._check_possession(scope, caller, token, bound)
            return caller
        except TokenRefused as refused:
            self._log_rejection(refused.reason, resource, authorization or "", refused.detail)
            raise
        except Killed:
            self._log_rejection("killed", resource, authorization or "")
            raise

    async def _authenticate_ticket(self, scope: Scope, ticket: str) -> Caller:
        holder = await self._proofs.find_ticket_holder(scope, ticket)
        return await self._callers.resolve_agent(holder.tenant, holder.agent, holder.grant_id)

    async def _check_possession(self, scope: Scope | None, caller: Caller, token: str, is_dpop: bool) -> None:
        """Verifies that a DPoP-bound token came with scheme DPoP, and any other token without (RFC 9449 s7.2). Raises ProofRefused."""
        if not is_dpop or not caller.thumbprint:
            raise ProofRefused("downgrade" if caller.thumbprint else "unbound", INVALID_TOKEN)
        await self._proofs.check_possession(scope, token, caller.principal.tenant, caller.thumbprint)

    def _audiences_of(self, resource: str) -> tuple[str, ...]:
        known = self._audiences.get(resource)
        if known is None:
            known = (self._public_url, f"{self._public_url}{resource}")
            if len(self._audiences) < 10_000:
                self._audiences[resource] = known
        return known

    def challenge(self, resource: str, error: str = "", scope: str = "", scheme: str = "Bearer") -> str:
        """Returns the WWW-Authenticate value (RFC 6750 s3, RFC 9728 s5.1, RFC 9449 s7.1)."""
        parts = [f'{scheme} resource_metadata="{self._public_url}/.well-known/oauth-protected-resource{resource}"']
        if scheme == "DPoP":
            parts.append('algs="ES256 RS256"')
        if error:
            parts.append(f'error="{error}"')
        if scope := scope or ("" if error == "insufficient_scope" else self._default_scope):
            parts.append(f'scope="{scope}"')
        return ", ".join(parts)
