"""The outbound stack with OAuth, against a real authorization server and a server that takes its tokens, on loopback."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from adapters.contract import Call, ConsentNeeded
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.probe import Probe
from adapters.mcp_client.wire.messages import McpRequest
from adapters.oauth.authorized import Consent, CredentialRequest, UpstreamOAuth
from adapters.oauth.grants import OwnClient, consent_url
from adapters.oauth.options import read_auth_options
from adapters.openapi.tools import OpenApiServers
from adapters.tool_servers import ToolServerClient
from adapters.upstream.egress import Egress
from policies.delegation.chain import Delegation, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import Act, Decision, Grant
from policies.keys.signing import SigningKeys
from registry.cards.card import Family, Registration, RegistrationStatus
from tests.fakes.authorization_server import AuthorizationServer, Protected, visited
from tests.fakes.timeouts import LONG_TIMEOUTS
from tests.fakes.vault import MemoryVault

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def grant_of(user: str = "alice", tenant: str = "acme", issuer: str = "https://idp") -> Grant:
    principal = Principal(tenant, issuer, user)
    act = Act("callTool", "Tool", "crm.read", "tool:crm.read", "crm")
    return Grant(Decision("d_1", 0, True, "allowed", principal.owner_key, (), (), act), Delegation(principal, ALL_PERMISSIONS, 2e9))


class Asked:
    """Consents: keeps what people are asked."""

    def __init__(self) -> None:
        self.consents: list[Consent] = []

    async def request_consent(self, consent: Consent) -> ConsentNeeded:
        self.consents.append(consent)
        return ConsentNeeded(f"https://gw.test/connect/{len(self.consents)}", str(len(self.consents)), consent.server)


class Bench:
    """The outbound stack against one authorization server and one server. `way` may be changed before the first call."""

    def __init__(self, home: Path, egress: Egress, issuer: AuthorizationServer, server: Protected) -> None:
        self.issuer, self.server, self.now = issuer, server, time.time()
        keys = SigningKeys.open(home)
        url = "https://gw.test"
        documents = (f"{url}/oauth/client", f"{url}/oauth/client-keys", f"{url}/jwks")
        self.own = OwnClient(*documents, f"{url}/connect/callback", keys.sign, lambda: self.now, url)
        self.keys, self.vault, self.asked = keys, MemoryVault(), Asked()
        terms = lambda upstream: read_auth_options(upstream["auth"], lambda value: value) if "auth" in upstream else None  # noqa: E731 (as the house does)
        self.oauth = UpstreamOAuth(egress, self.own, self.vault, self.asked, terms)
        clock = asyncio.get_running_loop().time
        self.tools = ToolServerClient(
            McpPool(egress, clock, initialize_seconds=LONG_TIMEOUTS.initialize_probe), apis=OpenApiServers(egress, clock), oauth=self.oauth
        )
        self.auth: dict[str, Any] = {}
        self.shared: dict[str, str] = {}  # headers that the operator set
        self.people = "https://idp"  # who vouches for them

    @property
    def upstream(self) -> dict[str, Any]:
        return {"auth": self.auth} | ({"headers": self.shared} if self.shared else {})

    def call(self, user: str = "alice", **headers: str) -> Call:
        target = Registration(
            tenant="acme",
            name="crm",
            family=Family.SERVER,
            kind="mcp",
            status=RegistrationStatus.ACTIVE,
            url=f"{self.server.origin}/mcp",
            owner="",
            ceiling=("*",),
            delegation="none",
            upstream=self.upstream,
            facts={"era": "modern"},
            client_id="",
            card=None,
            card_text="",
            tools=(),
            card_hash="",
            created=0,
            updated=0,
        )
        return Call(grant_of(user, issuer=self.people), target, asyncio.get_running_loop().time() + 60, headers)

    async def does(self, tool: str = "read", user: str = "alice") -> str:
        params = {"name": tool, "arguments": {}, "_meta": META}
        raw = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        request = McpRequest(1, tool, json.dumps(raw).encode(), json.dumps(params).encode(), True)
        answer = await self.tools.call(self.call(user), request)
        return str(json.loads(answer.result)["content"][0]["text"])

    async def looks(self, approach: CredentialRequest) -> Probe:
        return await self.tools.probe("crm", approach.url, {}, approach)

    async def consent(self, consent: Consent | None = None, **changed: str) -> None:
        """The person agrees, and comes back with what the server says, `changed`."""
        consent = consent or self.asked.consents[-1]
        verifier = "v" * 43
        answer = await visited(consent_url(consent.at, self.own, consent.client.client_id, consent.authorization_params("s", verifier)))
        assert answer.pop("state") == "s"
        await self.oauth.complete_consent(consent, verifier, {**answer, **changed})

    async def connected(self, tool: str = "read", user: str = "alice") -> str:
        """Does it after the consent that it needs."""
        with pytest.raises(ConsentNeeded):
            await self.does(tool, user)
        await self.consent()
        return await self.does(tool, user)
