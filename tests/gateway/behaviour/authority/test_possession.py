"""Bound tokens at every door: with the proof of their key, for this request, once; whoever stole them gets nothing."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from a2a.client.errors import A2AClientError

from policies.tokens.verifier import DEVELOPMENT_ISSUER
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.issuer import ABSENT
from tests.fakes.proofs import Prover
from tests.fakes.reference_clients import GRPC, client_of, every_door, request

DOORS = {  # door -> method, path, body
    "a2a-jsonrpc": ("POST", "/agents/sales", {"method": "GetTask", "params": {"id": "t_0"}}),
    "a2a-rest": ("GET", "/agents/sales/tasks", None),
    "a2a-rest-0.3": ("GET", "/agents/sales/v1/tasks", None),
    "mcp": ("POST", "/mcp", {"method": "tools/list", "params": {}}),
    "mcp-server": ("POST", "/mcp/inventory", {"method": "tools/list", "params": {}}),
    "api": ("GET", "/api/tasks", None),
}


def bound_token(home: House, prover: Prover, user: str = "alice", **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": DEVELOPMENT_ISSUER, "sub": user, "tid": "default", "aud": home.url, "iat": now, "exp": now + 600, "jti": f"u{now}"}
    return home.gateway.keys.sign({**said, "cnf": {"jkt": prover.thumbprint}, **claims}, "at+jwt")


async def ask(home: House, door: str, authorization: str, proofs: list[str]) -> httpx.Response:
    method, path, body = DOORS[door]
    headers = [
        ("authorization", authorization),
        ("A2A-Version", "0.3" if door.endswith("0.3") else "1.0"),
        *(("dpop", proof) for proof in proofs),
    ]
    if path.startswith("/mcp"):
        headers += [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list"), ("accept", "application/json, text/event-stream")]
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    if body is not None:
        body = {"jsonrpc": "2.0", "id": 1, **body}
        if path.startswith("/mcp"):
            body["params"] = {"_meta": meta}
    return await home.http.request(method, path, headers=headers, json=body)


@pytest.fixture
async def ready(home: House) -> House:
    await home.agent(CallbackAgent("sales"))
    await home.server("inventory", "check")
    return home


@pytest.fixture
def prover() -> Prover:
    return Prover(time.time)


def proof_for(home: House, door: str, prover: Prover, token: str, **claims: Any) -> str:
    method, path, _ = DOORS[door]
    return prover.proof(method, f"{home.url}{path}", token, **claims)


@pytest.mark.parametrize("door", DOORS)
async def test_tok_12_a_bound_token_opens_a_door_with_its_proof_alone(ready: House, prover: Prover, door: str) -> None:  # attack TOK-12
    token = bound_token(ready, prover)
    proof = proof_for(ready, door, prover, token)
    assert (await ask(ready, door, f"DPoP {token}", [proof])).status_code == 200
    thief, now = Prover(time.time), int(time.time())
    other = "a2a-rest" if door != "a2a-rest" else "api"
    wrong: dict[str, list[str]] = {
        "no proof": [],
        "used before": [proof],
        "another key": [proof_for(ready, door, thief, token)],
        "another method": [proof_for(ready, door, prover, token, htm="PUT")],
        "another address": [proof_for(ready, other, prover, token, htm=DOORS[door][0])],
        "another token": [proof_for(ready, door, prover, token + "x")],
        "no token": [proof_for(ready, door, prover, token, ath=ABSENT)],
    }
    for what, proofs in wrong.items():
        refused = await ask(ready, door, f"DPoP {token}", proofs)
        challenge = refused.headers["www-authenticate"]
        assert (refused.status_code, challenge.startswith("DPoP ")) == (401, True), (what, refused.text)
        assert 'error="invalid_dpop_proof"' in challenge and "resource_metadata=" in challenge and "algs=" in challenge, what
    stale = await ask(ready, door, f"DPoP {token}", [proof_for(ready, door, prover, token, iat=now - 600)])
    assert (stale.status_code, 'error="use_dpop_nonce"' in stale.headers["www-authenticate"]) == (401, True)
    again = proof_for(ready, door, prover, token, iat=now - 600, nonce=stale.headers["dpop-nonce"])
    assert (await ask(ready, door, f"DPoP {token}", [again])).status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("door", DOORS)
async def test_tok_12_neither_kind_of_token_passes_for_the_other(ready: House, prover: Prover, door: str) -> None:  # attack TOK-12
    token, bearer = bound_token(ready, prover), ready.token("alice")
    for authorization in (f"Bearer {token}", f"DPoP {bearer}", f"dpop {bearer}", f"bearer {token}"):
        proof = proof_for(ready, door, prover, authorization.split()[1])
        refused = await ask(ready, door, authorization, [proof])
        assert refused.status_code == 401, authorization
        assert refused.headers["www-authenticate"].startswith('DPoP resource_metadata="')
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    twice = [proof_for(ready, door, prover, token) for _ in range(2)]
    assert (await ask(ready, door, f"DPoP {token}", twice)).status_code == 400
    assert (await ask(ready, door, f"Bearer {bearer}", ["nonsense"])).status_code == 200  # a bearer token proves nothing


@pytest.fixture
async def with_grpc(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with every_door(tmp_path / "home", database_url) as built:
        url = await built.stack.enter_async_context(serving(a2a_agent()))
        await built.registered("sales", url)
        yield built


async def refused(client: Any) -> grpc.aio.AioRpcError:
    with pytest.raises((A2AClientError, grpc.aio.AioRpcError)) as raised:
        await client.send_message(request("hello"))
    error = raised.value if isinstance(raised.value, grpc.aio.AioRpcError) else raised.value.__cause__
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    return error


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("door", "service"), [("grpc-1.0", "lf.a2a.v1.A2AService"), ("grpc-0.3", "a2a.v1.A2AService")])
async def test_tok_12_grpc_asks_for_the_same_proofs(with_grpc: House, prover: Prover, door: str, service: str) -> None:  # attack TOK-12
    assert door in GRPC
    token = bound_token(with_grpc, prover)
    url = f"http://{with_grpc.gateway.settings.public_grpc}/{service}/SendMessage"
    proof = prover.proof("POST", url, token)
    async with client_of(with_grpc, door, headers={"authorization": f"DPoP {token}", "dpop": proof}) as client:
        assert (await client.send_message(request("hello"))).task.id
        again = await refused(client)
    assert 'error="invalid_dpop_proof"' in dict(again.trailing_metadata() or ())["www-authenticate"]
    for headers in ({"authorization": f"Bearer {token}"}, {"authorization": f"DPoP {token}"}):
        async with client_of(with_grpc, door, headers=headers) as client:
            await refused(client)


async def test_tok_12_a_proof_used_at_one_process_is_used_up_at_all(  # attack TOK-12
    tmp_path: Path, postgres_url: str, prover: Prover
) -> None:
    async with house(tmp_path / "home", postgres_url) as one, house(tmp_path / "home", postgres_url) as other:
        token = bound_token(one, prover)
        proof = proof_for(one, "api", prover, token)
        answers = [await ask(at, "api", f"DPoP {token}", [proof]) for at in (one, other)]
        assert [answer.status_code for answer in answers] == [200, 401]


async def test_an_exchanged_token_can_be_bound_to_a_key_of_the_agents(home: House, prover: Prover) -> None:  # attack TOK-11, TOK-12
    server = await home.server("inventory", "check")
    seen: dict[str, Any] = {}

    async def support(handed: str, text: str) -> str:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": handed,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "resource": f"{home.url}/mcp/inventory",
            "scope": "tool:inventory.check",
        }
        endpoint = f"{home.url}/oauth/token"
        for wrong in ({"htm": "GET"}, {"htu": f"{home.url}/mcp"}, {"iat": 1}):
            headers = {"dpop": prover.proof("POST", endpoint, **wrong)}
            refused = await home.http.post("/oauth/token", data=form, auth=home.secrets["support"], headers=headers)
            assert refused.json()["error"] == ("use_dpop_nonce" if "iat" in wrong else "invalid_dpop_proof")
            assert (refused.status_code, "dpop-nonce" in refused.headers) == (400, "iat" in wrong)
        headers = {"dpop": prover.proof("POST", endpoint)}
        given = (await home.http.post("/oauth/token", data=form, auth=home.secrets["support"], headers=headers)).json()
        assert given["token_type"] == "DPoP"
        token = given["access_token"]
        seen["stolen"] = (await home.call(token, "/mcp/inventory", "check", {})).status_code
        seen["proved"] = (await called(token)).json()
        return "done"

    async def called(token: str) -> httpx.Response:
        proof = prover.proof("POST", f"{home.url}/mcp/inventory", token)
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check", "dpop": proof}
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
        params = {"name": "check", "arguments": {}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
        return await home.http.post("/mcp/inventory", json=body, headers={**headers, "authorization": f"DPoP {token}"})

    await home.agent(CallbackAgent("support", support))
    await home.send(home.token("alice"), "support", "go")
    assert seen["stolen"] == 401
    assert "result" in seen["proved"]
    assert len(server.calls) == 1


async def test_the_page_that_takes_a_token_by_hand_takes_no_bound_one(home: House, prover: Prover) -> None:  # attack TOK-12
    refused = await home.http.post("/connect/nothing", data={"token": bound_token(home, prover)})
    assert refused.status_code in (401, 404)
    assert "valid" in refused.text or "does not exist" in refused.text
