"""An agent with credentials, and the parts of the gateway that the token endpoint asks."""

import base64
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

import httpx

from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.permissions import Permissions
from policies.tokens.hop_tokens import ExchangeRefused, TokenExchangeRequest, TokenExchangeResponse
from policies.tokens.person_tokens import AssertionExchangeRequest, AssertionExchangeResponse
from registry.cards.card import Family, Registration, RegistrationStatus

SECRET = "s3cret:with/odd+signs"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
FORM = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token": "the.hop.token",
    "subject_token_type": ACCESS,
    "resource": "https://gw.test/mcp/crm",
    "scope": "tool:crm.read",
}
SALES = Registration(
    tenant="acme",
    name="sales",
    family=Family.AGENT,
    kind="a2a",
    status=RegistrationStatus.ACTIVE,
    url="https://sales.test/a2a",
    owner="operator",
    ceiling=("*",),
    delegation="bearer",
    upstream={},
    facts={},
    client_id="c_sales",
    card=None,
    card_text="",
    tools=(),
    card_hash="",
    created=0,
    updated=0,
)


class FakeClients:
    """Agents by client id. All have the same secret; `jwks` is their key set."""

    def __init__(self, *clients: Registration) -> None:
        self.jwks = ""
        self._clients = {client.client_id: client for client in clients}

    def find_client(self, client_id: str) -> Registration | None:
        return self._clients.get(client_id)

    def verify_secret(self, client_id: str, secret: str) -> bool:
        return hmac.compare_digest(secret.encode(), SECRET.encode())

    def jwks_of_client(self, client_id: str) -> str:
        return self.jwks


def agents() -> FakeClients:
    return FakeClients(
        SALES,
        replace(SALES, name="new", client_id="c_new", status=RegistrationStatus.PENDING),
        replace(SALES, name="bad", client_id="c_bad", status=RegistrationStatus.QUARANTINED),
        replace(SALES, name="crm", client_id="c_crm", family=Family.SERVER),
    )


class FakeExchanger:
    """Grants what is asked for, or raises `refusal`. Whoever names its own URL renews."""

    def __init__(self) -> None:
        self.asked: list[TokenExchangeRequest] = []
        self.refusal: ExchangeRefused | None = None

    def is_renewal(self, asked: TokenExchangeRequest) -> bool:
        return asked.resource == asked.agent_audience

    async def renew(self, asked: TokenExchangeRequest) -> TokenExchangeResponse:
        return replace(await self.exchange(asked), renewed=True)

    async def exchange(self, asked: TokenExchangeRequest) -> TokenExchangeResponse:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal
        alice = Principal("acme", "https://idp.test", "alice")
        scope = Permissions.parse(asked.scope.split(" ") if asked.scope else ["agent:*"])
        return TokenExchangeResponse("new.hop.token", 120, asked.scope, Delegation(alice, scope, 0.0, (Hop("sales"),), 4, "x1", "g1", "T1"))


class NoRedeemer:
    """Takes no identity assertion."""

    async def redeem(self, asked: AssertionExchangeRequest) -> AssertionExchangeResponse:
        raise ExchangeRefused("invalid_grant", "not here")


class NoKeys:
    """Binds no token."""

    async def find_key_thumbprint(self, scope: Any, tenant: str) -> str:
        return ""


class Trail:
    """The audit."""

    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []
        self.noted: list[tuple[str, ...]] = []
        self.failure: Exception | None = None

    async def __call__(self, record: Mapping[str, Any]) -> None:
        if self.failure is not None:
            raise self.failure
        self.records.append(record)


class FakeWriter:
    """The table of spent ids, as a set."""

    def __init__(self) -> None:
        self.ids: set[tuple[Any, ...]] = set()

    async def write(self, work: Any) -> Any:
        return work(self)

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        if not statement.startswith("INSERT"):
            return 0
        known = values[:2] in self.ids
        self.ids.add(values[:2])
        return 0 if known else 1


def basic(client_id: str = "c_sales", secret: str = SECRET, scheme: str = "Basic") -> dict[str, str]:
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"authorization": f"{scheme} {base64.b64encode(pair.encode()).decode()}"}


def refused(answer: httpx.Response, error: str, status: int = 400) -> bool:
    """The exact shape of RFC 6749 s5.2, with the trace id where the whole gateway answers."""
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) - {"trace_id"} == {"error", "error_description"}
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    return True
