"""Values of a run: their digests, and those that are too large for the journal, which are rows of their own."""

import hashlib
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import select

from gateway.storage.database import Batch
from gateway.workflows.runs.store import RunKey, RunStore
from gateway.workflows.runs.tables import workflow_values

INLINE_MAX: Final = 64 << 10  # bytes of a value within a row of the journal
SECRET_NAMES: Final = ("passw", "pwd", "secret", "token", "credential", "cookie", "authorization", "api_key", "apikey", "private_key")
MASK: Final = "***"
_INSERT_VALUE: Final = "INSERT INTO workflow_values (tenant, run_id, digest, size, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
encode_canonical = msgspec.json.Encoder(order="sorted").encode


class Reference(Struct, frozen=True):
    """Stands for a value in a row of its own. `digest` is sha256 in hex of its canonical JSON, `size` the bytes of that."""

    digest: str
    size: int


def digest_of(value: Any) -> str:
    """sha256 in hex of a value as JSON without spaces, whose members are sorted by name."""
    return hashlib.sha256(encode_canonical(value)).hexdigest()


def canonical_value(value: Any) -> Any:
    """A value as it is read back from its canonical JSON, so that a run sees the same order of members when it is replayed."""
    return msgspec.json.decode(encode_canonical(value))


def storable(text: str) -> str:
    """A text that others wrote, as a column of its own has it: PostgreSQL stores no NUL in text."""
    return text.replace("\0", "\ufffd")


def mask_secrets(value: Any) -> Any:
    """A value without the texts, lists and objects of members whose names are those of secrets, such as `password`."""
    if isinstance(value, dict):
        return {
            name: MASK if isinstance(member, str | list | dict) and _is_secret(name) else mask_secrets(member)
            for name, member in value.items()
        }
    return [mask_secrets(each) for each in value] if isinstance(value, list | tuple) else value


def _is_secret(name: object) -> bool:
    folded = str(name).lower().replace("-", "_")
    return any(part in folded for part in SECRET_NAMES)


def insert_value(batch: Batch, run: RunKey, encoded: bytes) -> Reference:
    """Stores a value by its canonical JSON."""
    reference = Reference(hashlib.sha256(encoded).hexdigest(), len(encoded))
    batch.run(_INSERT_VALUE, (run.tenant, run.id, reference.digest, reference.size, encoded.decode()))
    return reference


async def read_values(store: RunStore, run: RunKey) -> dict[str, str]:
    """The JSON of every large value of a run, by its digest."""
    mine = (workflow_values.c.tenant == run.tenant) & (workflow_values.c.run_id == run.id)
    query = select(workflow_values.c.digest, workflow_values.c.value).where(mine)
    return dict(await store.database.read(lambda connection: [tuple(row) for row in connection.execute(query)]))


async def read_value(store: RunStore, run: RunKey, digest: str) -> str | None:
    """The JSON of one large value without its secrets, or None."""
    mine = (workflow_values.c.tenant == run.tenant) & (workflow_values.c.run_id == run.id) & (workflow_values.c.digest == digest)
    query = select(workflow_values.c.value).where(mine)
    found = await store.database.read(lambda connection: connection.execute(query).scalar())
    return None if found is None else encode_canonical(mask_secrets(msgspec.json.decode(found))).decode()
