"""Checks the documents of the folder `workflows` without a gateway."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from gateway.server.composition.access.authorization import build_service_principals
from gateway.server.settings import Settings
from gateway.workflows.dsl.loading import name_in
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.checks import HasService, read_alone
from gateway.workflows.publishing.files import RefusedDocument, documents_in, read_file
from registry.seeds import DEFAULT_TENANT


def refused_documents(settings: Settings) -> tuple[Sequence[RefusedDocument], int]:
    """The documents with mistakes, and how many documents there are. The registry is not asked. Raises OSError."""
    services, paths = build_service_principals(settings), documents_in(Path(settings.workflows))
    return asyncio.run(_find_refused(paths, lambda name: services.has(DEFAULT_TENANT, name))), len(paths)


async def _find_refused(paths: Sequence[Path], has_service: HasService) -> Sequence[RefusedDocument]:
    evaluator = Evaluator()
    try:
        found = [await _find_mistakes(path, evaluator, has_service) for path in paths]
    finally:
        await evaluator.close()
    return [each for each in found if each.problems]


async def _find_mistakes(path: Path, evaluator: Evaluator, has_service: HasService) -> RefusedDocument:
    """A document with everything that is wrong with it by itself; without problems where nothing is."""
    text = ""
    try:
        text = read_file(path)
        _, document, problems = await read_alone(text, evaluator, has_service)
    except DocumentRefused as refused:
        return RefusedDocument(path.name, name_in(text), refused.problems)
    return RefusedDocument(path.name, document.document.name, tuple(sorted(set(problems))))
