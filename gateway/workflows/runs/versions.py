"""Documents of versions, parsed once per process."""

from typing import Final

from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.loading import read_text
from gateway.workflows.runs.store import RunStore

KEPT_MAX: Final = 200
KEPT_TEXT_MAX: Final = 4 << 20  # characters of the texts of all documents that are kept


class Versions:
    """Reads versions. A version never changes, so a parsed one is kept."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._documents: dict[tuple[str, str, str], tuple[int, Document]] = {}  # with the length of the text

    async def document(self, tenant: str, name: str, version: str) -> Document | None:
        """The document of a version, or None. Raises DocumentRefused for one that another release of the gateway took."""
        key = (tenant, name, version)
        if (known := self._documents.get(key)) is not None:
            return known[1]
        text = await self._store.document_of(tenant, name, version)
        if text is None:
            return None
        found = (await read_text(text))[1]
        self._documents[key] = (len(text), found)
        self._drop_oldest()
        return found

    def _drop_oldest(self) -> None:
        while len(self._documents) > 1 and (
            len(self._documents) > KEPT_MAX or sum(size for size, _ in self._documents.values()) > KEPT_TEXT_MAX
        ):
            del self._documents[next(iter(self._documents))]
