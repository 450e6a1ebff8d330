"""Runs of workflows by people of an identity provider: roles come from tokens, and grants grow old."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.house import URL, CallbackAgent, House, house
from tests.fakes.issuer import FakeIssuer, serving
from tests.fakes.workflows import Workflows, output_of

DAY = 86_400
OWNER = "ada"
PAUSE = """
do:
- pause: {wait: PT48H}
- ask:
    call: gateway.agent
    with: {agent: sales, input: hi}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""


class ProviderRuns:
    """Runs that `ada` starts with tokens of her provider. Her token lives ten minutes."""

    def __init__(self, home: House, issuer: FakeIssuer) -> None:
        self.home = home
        self.issuer = issuer
        self.workflows = Workflows(home)

    def token(self, *roles: str) -> str:
        return self.issuer.mint(sub=OWNER, roles=list(roles or ("sales",)))

    async def start(self, workflow: str, *roles: str) -> str:
        body = {"workflow": workflow, "input": {}}
        answer = await self.workflows.desk.ask("POST", "/api/runs", body=body, token=self.token(*roles))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def row(self, run: str) -> Any:
        """The task of a run as the database has it: reading it is no look of its owner."""
        return await self.home.gateway.stores.tasks.find("default", f"default|{self.issuer.url}|{OWNER}", run)

    async def output(self, run: str, token: str) -> Any:
        return output_of((await self.workflows.desk.ask("GET", f"/api/tasks/{run}", token=token)).json())

    async def pass_time(self, seconds: int) -> None:
        """Moves the engine's clock forward, and every grant into the past: tokens of before have expired, roles have grown old."""
        past, gateway = seconds * 1_000_000, self.home.gateway
        statement = "UPDATE grants SET not_after = not_after - ?, roles_until = roles_until - ?, created = created - ?"
        await gateway.database.write(lambda batch: batch.run(statement, (past, past, past)))
        gateway.rulings.grants.invalidate()
        await self.workflows.pass_time(seconds)


@asynccontextmanager
async def provider_runs(folder: Path, database_url: str, **settings: Any) -> AsyncIterator[ProviderRuns]:
    """A gateway that accepts a provider's tokens, with the agent `sales`."""
    issuer = FakeIssuer(audience=URL)
    with serving(issuer):
        listed = {"issuer": issuer.url, "jwks_url": issuer.jwks_url}
        identity = {"development": "on", "issuers": [listed], **settings.pop("identity", {})}
        async with house(folder / "home", database_url, identity=identity, egress={"allow": ["127.0.0.1"]}, **settings) as home:
            await home.agent(CallbackAgent("sales"))
            yield ProviderRuns(home, issuer)
