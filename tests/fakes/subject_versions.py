"""The versions of subjects, as they are stored."""

from sqlalchemy import Connection, select

from gateway.state.tables import subjects


def read_subject_version(connection: Connection, tenant: str, subject: str) -> int:
    """The version of a subject; 0 without a row."""
    query = select(subjects.c.version).where(subjects.c.tenant == tenant, subjects.c.subject == subject)
    return connection.execute(query).scalar() or 0
