"""Documents of versions, parsed once per process."""

from typing import Final

from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.runs.store import RunStore

KEPT_MAX: Final = 200


class Versions:
    """Reads versions. A version never changes, so a parsed one is kept."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._documents: dict[tuple[str, str, str], Document] = {}

    async def document(self, tenant: str, name: str, version: str) -> Document | None:
        """The document of a version, or None. Raises DocumentRefused for one that a newer gateway wrote."""
        key = (tenant, name, version)
        if (known := self._documents.get(key)) is not None:
            return known
        text = await self._store.document_of(tenant, name, version)
        if text is None:
            return None
        if len(self._documents) >= KEPT_MAX:
            self._documents.pop(next(iter(self._documents)))
        self._documents[key] = found = read_document(read_source(text))
        return found
