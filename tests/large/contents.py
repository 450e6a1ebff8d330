"""What a large gateway has: rows that are inserted in bulk, beside those of the console's fixture."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, insert

from policies.tokens.verifier import DEVELOPMENT_ISSUER
from registry import search_terms
from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.cards.reader import read_card
from registry.rows import Candidate, row_of
from registry.tables import registrations
from tests.bench.console_fixture import BATCH, Size, agent_name, fill

VERBS: Final = ("list", "read", "create", "update", "delete", "search", "export", "import", "approve", "archive")
NOUNS: Final = ("invoice", "order", "customer", "ticket", "contract", "shipment", "payment", "report", "meeting", "employee")
ARGUMENTS: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The id of the record"},
        "fields": {"type": "array", "items": {"type": "string"}, "description": "The fields to return"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    },
    "required": ["id"],
}


@dataclass(frozen=True, slots=True)
class LargeSize:
    """How much there is. One sixth as many tasks more are those of other people."""

    agents: int = 10_000
    servers: int = 300
    tools: int = 10_000
    tasks: int = 1_000_000

    @classmethod
    def scaled(cls, share: float) -> "LargeSize":
        """A smaller one, for trying the benchmark out."""
        return cls(*(max(20, int(count * share)) for count in (10_000, 300, 10_000, 1_000_000)))


def fill_large(engine: Engine, person: str, size: LargeSize, report: Callable[[str], None] = lambda line: None) -> None:
    """Fills an empty, migrated database. `report` gets a line after each part."""
    fill(engine, person, Size(agents=size.agents, tasks=size.tasks, runs=min(10_000, size.tasks // 100), letters=100), report)
    rows = list(_servers(size))
    with engine.begin() as connection:
        for first in range(0, len(rows), BATCH):
            connection.execute(insert(registrations), rows[first : first + BATCH])
        for number in range(size.agents):
            name = agent_name(number)
            search_terms.write(connection, "default", name, search_terms.terms_of(name, read_card(_card_of(number))))
    with engine.connect() as connection:
        connection.connection.cursor().execute("ANALYZE" if engine.dialect.name == "sqlite" else "SELECT 1")


def _card_of(number: int) -> dict[str, Any]:
    description = f"Agent {number} of the benchmark answers questions about subject{number % 500} and its neighbours"
    return {
        "name": agent_name(number),
        "description": description,
        "version": "1",
        "capabilities": {},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "supportedInterfaces": [{"url": "http://127.0.0.1:9/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "skills": [{"id": "quote", "name": "Quote", "description": "Makes a quote", "tags": ["sales"]}],
    }


def _servers(size: LargeSize) -> Iterator[dict[str, Any]]:
    now, per_server = time.time_ns() // 1000, -(-size.tools // size.servers)
    for number in range(size.servers):
        count = min(per_server, max(0, size.tools - number * per_server))
        tools = tuple(_tool(number, at) for at in range(count))
        name, url = f"server-{number:03}", f"http://127.0.0.1:9/{number}/mcp"
        candidate = Candidate(
            "default", name, Family.SERVER, "mcp", url, "operator", RegistrationStatus.ACTIVE,
            facts={"era": "modern", "protocol_version": "2026-07-28"}, tools=tools,
        )  # fmt: skip
        credentials = {"client_id": f"s_{number}", "client_secret_hash": "", "client_jwks": ""}
        yield {**row_of(candidate), **credentials, "created": now - number, "updated": now - number}


def _tool(server: int, at: int) -> McpTool:
    name = f"{VERBS[at % 10]}_{NOUNS[(at // 10 + server) % 10]}_{at}"
    description = f"Does {name.replace('_', ' ')} in system {server}, with all of its fields, and tells what has changed."
    return McpTool(name, json.loads(json.dumps({"name": name, "description": description, "inputSchema": ARGUMENTS})))


def owner_of(person: str) -> str:
    return f"default|{DEVELOPMENT_ISSUER}|{person}"
