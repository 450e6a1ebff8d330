"""The tools that policies can speak of: those that servers offer, as they are registered."""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, select

from policies.cedar.argument_types import KnownTool
from registry.cards.card import Family, Registration
from registry.rows import registration_from_row
from registry.tables import registrations


def known_tools_of(servers: Iterable[Registration]) -> Iterator[KnownTool]:
    """What is withheld is not among them."""
    for entry in servers:
        for tool in entry.tools:
            schema = tool.definition.get("inputSchema")
            yield KnownTool(entry.tenant, entry.name, tool.name, schema if isinstance(schema, dict) else {})


def read_known_tools(connection: Connection) -> list[KnownTool]:
    """The same from the rows, for who stands beside the gateway."""
    rows = connection.execute(select(registrations).where(registrations.c.family == Family.SERVER.value))
    return list(known_tools_of(registration_from_row(row) for row in rows))
