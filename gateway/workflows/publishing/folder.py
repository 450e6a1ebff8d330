"""The folder of documents that the setting `workflows` names: each is published as an operator's, once all that it names is registered."""

import asyncio
from pathlib import Path

import structlog

from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.registrar import WorkflowRegistrar
from registry.changes import RegistryChange
from registry.seeds import DEFAULT_TENANT, OPERATOR
from registry.store import NameTaken, Outdated

SUFFIXES = (".yaml", ".yml", ".json")
log = structlog.get_logger()


class WorkflowFolder:
    """Publishes documents at start. A document that is refused is tried again, since what it names may be registered later."""

    def __init__(self, folder: Path, registrar: WorkflowRegistrar) -> None:
        self._registrar = registrar
        self._waiting = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and ".test." not in path.name)
        self._logged: dict[Path, str] = {}

    async def run_once(self) -> int:
        """Tries each document that is not published yet; returns how many still wait."""
        self._waiting = [path for path in self._waiting if not await self._publish(path)]
        return len(self._waiting)

    async def _publish(self, path: Path) -> bool:
        try:
            text = await asyncio.to_thread(path.read_text, "utf-8")
            entry = await self._registrar.add(DEFAULT_TENANT, OPERATOR, text, RegistryChange("register", OPERATOR))
        except (DocumentRefused, NameTaken, Outdated, OSError, UnicodeError) as error:
            if self._logged.get(path) != str(error):  # once for each new reason
                self._logged[path] = str(error)
                log.warning("workflow_refused", file=path.name, problem=str(error)[:2000])
            return False
        log.info("workflow_published", file=path.name, workflow=entry.name)
        return True
