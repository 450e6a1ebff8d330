"""The registered tools with their input schemas, against which policies are checked."""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, select

from policies.cedar.argument_types import KnownTool
from registry.cards.card import Family, Registration
from registry.rows import registration_from_row
from registry.tables import registrations


def known_tools_of(servers: Iterable[Registration]) -> Iterator[KnownTool]:
    """Yields the tools of these servers. Withheld definitions are not included."""
    for entry in servers:
        for tool in entry.tools:
            schema = tool.definition.get("inputSchema")
            yield KnownTool(entry.tenant, entry.name, tool.name, schema if isinstance(schema, dict) else {})


def read_known_tools(connection: Connection) -> list[KnownTool]:
    """Reads the known tools from the database, for commands that run without a gateway."""
    rows = connection.execute(select(registrations).where(registrations.c.family == Family.SERVER.value))
    return list(known_tools_of(registration_from_row(row) for row in rows))
