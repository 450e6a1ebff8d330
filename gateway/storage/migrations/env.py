"""Alembic's environment: uses the given connection, sets up no logging, and has no offline mode."""

from alembic import context

from gateway.storage.tables import metadata as gateway_tables
from policies.tables import metadata as policies_tables
from registry.tables import metadata as registry_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[gateway_tables, policies_tables, registry_tables],
)
with context.begin_transaction():
    context.run_migrations()
