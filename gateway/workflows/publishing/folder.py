"""The folder of documents that the setting `workflows` names: each is published as an operator's, once all that it names is registered."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from gateway.workflows.dsl.loading import name_in
from gateway.workflows.problems import DocumentRefused, Problem
from gateway.workflows.publishing.files import RefusedDocument, read_file
from registry.cards.card import Registration
from registry.changes import RegistryChange
from registry.seeds import DEFAULT_TENANT, OPERATOR
from registry.store import NameTaken, Outdated

log = structlog.get_logger()


class Registrar(Protocol):
    """gateway/workflows/publishing/registrar.py."""

    async def add(self, tenant: str, owner: str, text: str, change: RegistryChange) -> Registration: ...

    async def reload(self) -> None: ...


class WorkflowFolder:
    """Publishes documents at start. A document that is refused is tried again, since what it names may be registered later."""

    def __init__(self, documents: Iterable[Path], registrar: Registrar, begin_schedules: Callable[[], Awaitable[None]]) -> None:
        """`begin_schedules`: makes the schedules those of the versions that are published."""
        self._registrar = registrar
        self._begin_schedules = begin_schedules
        self._waiting = list(documents)
        self._trying = asyncio.Lock()  # the clock and a change of the registry may ask for rounds at one moment
        self._refused: dict[Path, RefusedDocument] = {}
        self._logged: dict[str, RefusedDocument] = {}
        self.published_names: set[str] = set()

    @property
    def refused(self) -> Sequence[RefusedDocument]:
        """The documents that are not published, each with all reasons, in the order of the files."""
        return [self._refused[path] for path in self._waiting if path in self._refused]

    @property
    def waiting_count(self) -> int:
        """How many documents are not published yet."""
        return len(self._waiting)

    async def publish_all(self) -> None:
        """Tries each document until a round publishes none: a document may run a workflow whose document comes after it.

        Then the same once more, with what other processes that start at the same time have registered meanwhile.
        """
        await self._publish_in_rounds()
        if self._waiting:
            await self._registrar.reload()
            await self._publish_in_rounds()
        self._log_refused()

    async def _publish_in_rounds(self) -> None:
        while self._waiting and await self._try_waiting():
            continue

    async def run_once(self) -> None:
        """Tries each document that is not published yet."""
        await self._try_waiting()
        self._log_refused()

    async def _try_waiting(self) -> int:
        """Tries each document that is not published yet; returns how many of them are now, or are gone."""
        async with self._trying:
            tried = list(self._waiting)
            for path in tried:
                if await self._publish(path):
                    self._waiting.remove(path)
            published = len(tried) - len(self._waiting)
            if published:
                await self._begin_schedules()
            return published

    def _log_refused(self) -> None:
        """Logs each document that is refused, once for each new reason."""
        for each in self.refused:
            if self._logged.get(each.file) != each:
                self._logged[each.file] = each
                log.warning("workflow_refused", file=each.file, problem=str(DocumentRefused(each.problems))[:2000])

    async def _add(self, text: str) -> Registration:
        """Publishes a text, also where another process has registered the same at the same moment. Raises as WorkflowRegistrar.add does."""
        change = RegistryChange("register", OPERATOR)
        try:
            return await self._registrar.add(DEFAULT_TENANT, OPERATOR, text, change)
        except (NameTaken, Outdated):
            await self._registrar.reload()
        return await self._registrar.add(DEFAULT_TENANT, OPERATOR, text, change)

    async def _publish(self, path: Path) -> bool:
        """Whether nothing remains to be done for a document."""
        text = ""
        try:
            text = await asyncio.to_thread(read_file, path)
            entry = await self._add(text)
        except FileNotFoundError:
            log.warning("workflow_document_gone", file=path.name)
            return True
        except DocumentRefused as error:
            problems = error.problems
        except (NameTaken, Outdated) as error:
            problems = (Problem(0, "/document/name", str(error)),)
        else:
            self.published_names.add(entry.name)
            log.info("workflow_published", file=path.name, workflow=entry.name)
            return True
        self._refused[path] = RefusedDocument(path.name, name_in(text), problems)
        return False
