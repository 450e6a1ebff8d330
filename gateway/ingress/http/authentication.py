"""Admission: the same first questions at every door. Right host, no foreign origin, one bearer token that names this resource."""

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from gateway.ingress.http.asgi import BadHeader, Scope, header
from gateway.ingress.http.cors import Cors
from gateway.ingress.http.proofs import Proofs
from gateway.ingress.http.rejected_credentials import Noted
from policies.callers import Caller, Callers
from policies.delegation.kills import Killed
from policies.tokens.dpop import INVALID_TOKEN, ProofRefused
from policies.tokens.verifier import TokenRefused

TICKET = b"interlock-ticket"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class WrongHost(Exception):
    """The Host header names a host that this gateway is not."""


class ForeignOrigin(Exception):
    """A browser sent this from a page of somebody else."""


def hosts_of(public_url: str, host: str, port: int) -> frozenset[str]:
    """The Host values that mean us: the public one, and loopback names where only loopback is listened to, or is the public one."""
    public = urlsplit(public_url).netloc.lower()
    ours = {public, public.removesuffix(":80" if public_url.startswith("http:") else ":443")}
    if host in {"127.0.0.1", "::1", "localhost"} or urlsplit(public_url).hostname in {"127.0.0.1", "::1", "localhost"}:
        ours |= {f"{name}:{port}" for name in LOOPBACK}
    return frozenset(ours)


class Admission:
    """Asks them."""

    def __init__(
        self,
        callers: Callers,
        public_url: str,
        hosts: Collection[str],
        noted: Noted,
        proofs: Proofs,
        *,
        cors: Cors,
    ) -> None:
        self.cors = cors
        self._callers = callers
        self._proofs = proofs
        self._noted = noted
        self._public_url = public_url
        self._hosts = frozenset(hosts)
        self._origins = frozenset({f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")})
        self._audiences: dict[str, tuple[str, ...]] = {}

    def check_host(self, scope: Scope) -> None:
        """Raises WrongHost or BadHeader."""
        host = header(scope, b"host")
        if host is None or (host not in self._hosts and host.lower() not in self._hosts):
            raise WrongHost

    def check_origin(self, scope: Scope) -> None:
        """Lets pages of the gateway's own origin call. Raises ForeignOrigin or BadHeader."""
        origin = header(scope, b"origin")
        if origin is not None and origin.lower() not in self._origins:
            raise ForeignOrigin

    def _check_client_origin(self, scope: Scope) -> None:
        """Lets pages of the gateway's own origin and of those that CORS allows call. Raises ForeignOrigin or BadHeader."""
        origin = header(scope, b"origin")
        if origin is not None and origin.lower() not in self._origins and not self.cors.allows(origin):
            raise ForeignOrigin

    async def admit(self, scope: Scope, resource: str) -> Caller:
        """Who calls. `resource` is the path below the public URL that a hop token must be made for.

        Raises TokenRefused, WrongHost, ForeignOrigin and BadHeader.
        """
        self.check_host(scope)
        self._check_client_origin(scope)
        return await self.bearer(header(scope, b"authorization"), resource, scope)

    async def admits(self, scope: Scope, resource: str, allowed: Callable[[Caller], bool]) -> bool:
        """Whether `admit` lets in somebody who is `allowed`."""
        try:
            return allowed(await self.admit(scope, resource))
        except (TokenRefused, Killed, WrongHost, ForeignOrigin, BadHeader):
            return False

    async def bearer(self, given: str | None, resource: str, scope: Scope | None = None) -> Caller:
        """Who calls, by the value of `Authorization`, and by what the request in `scope` shows beside it.

        Raises TokenRefused; the log has the reason.
        """
        try:
            if scope is not None and (ticket := header(scope, TICKET)) is not None:
                return await self._with_ticket(scope, ticket)
            if given is None:
                raise TokenRefused("missing")
            scheme, _, token = given.partition(" ")
            bound = scheme.lower() == "dpop"
            if not (bound or scheme.lower() == "bearer") or not token or " " in token or "," in token:
                raise TokenRefused("malformed")
            caller = await self._callers.admit(token, self._audience(resource))
            if caller.thumbprint or bound:
                await self._check_possession(scope, caller, token, bound)
            return caller
        except TokenRefused as refused:
            self._noted(refused.reason, resource, given or "", refused.detail)
            raise
        except Killed:
            self._noted("killed", resource, given or "")
            raise

    async def _with_ticket(self, scope: Scope, ticket: str) -> Caller:
        holder = await self._proofs.holder(scope, ticket)
        return await self._callers.acting(holder.tenant, holder.agent, holder.grant_id)

    async def _check_possession(self, scope: Scope | None, caller: Caller, token: str, bound: bool) -> None:
        """A bound token is no bearer token, nor the other way round (RFC 9449 s7.2). Raises ProofRefused."""
        if not bound or not caller.thumbprint:
            raise ProofRefused("downgrade" if caller.thumbprint else "unbound", INVALID_TOKEN)
        await self._proofs.possessed(scope, token, caller.principal.tenant, caller.thumbprint)

    def _audience(self, resource: str) -> tuple[str, ...]:
        known = self._audiences.get(resource)
        if known is None:
            known = (self._public_url, f"{self._public_url}{resource}")
            if len(self._audiences) < 10_000:
                self._audiences[resource] = known
        return known

    def challenge(self, resource: str, error: str = "", scope: str = "", scheme: str = "Bearer") -> str:
        """The WWW-Authenticate value (RFC 6750 s3, RFC 9728 s5.1, RFC 9449 s7.1)."""
        parts = [f'{scheme} resource_metadata="{self._public_url}/.well-known/oauth-protected-resource{resource}"']
        if scheme == "DPoP":
            parts.append('algs="ES256 RS256"')
        if error:
            parts.append(f'error="{error}"')
        if scope:
            parts.append(f'scope="{scope}"')
        return ", ".join(parts)
