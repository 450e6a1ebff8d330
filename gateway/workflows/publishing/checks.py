"""What is wrong with a document whatever the registry has: its own mistakes, what this version does not run, and what settings lack."""

from collections.abc import Callable, Sequence

from gateway.tasks.contracts.skills import BadContract, check_contracts
from gateway.workflows.cloud_events.scheduling import schedule_problems
from gateway.workflows.dsl.checks import check_document
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.loading import Source, read_text
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.problems import DocumentRefused, Problem
from gateway.workflows.publishing.card import contracts_of
from gateway.workflows.publishing.event_rights import event_problems
from gateway.workflows.publishing.files import RESERVED_NAME
from gateway.workflows.publishing.support import unsupported
from registry.names import BadName, check_name

HasService = Callable[[str], bool]  # whether the settings have a service principal of this name


async def read_alone(text: str, evaluator: Evaluator, has_service: HasService) -> tuple[Source, Document, Sequence[Problem]]:
    """The document of a text, and what is wrong with it. Raises DocumentRefused for a text that has not the shape of a document."""
    source, document = await read_text(text)
    found: list[Problem] = []
    try:
        await check_document(document, source, evaluator)
    except DocumentRefused as refused:
        found += refused.problems
    found += [source.problem(path, reason) for path, reason in (*unsupported(document), *event_problems(document))]
    found += [source.problem(*each) for each in schedule_problems(document, has_service)]
    return source, document, [*found, *_registration_problems(document, source)]


def _registration_problems(document: Document, source: Source) -> list[Problem]:
    """Why a document can't become an agent."""
    found = []
    if document.document.name == RESERVED_NAME:
        found.append(source.problem("/document/name", "is the path of the JSON Schema; choose another name"))
    try:
        check_name(document.document.name)
    except BadName as error:
        found.append(source.problem("/document/name", str(error)))
    try:
        check_contracts(contracts_of(document))
    except BadContract as error:
        side = "output" if error.field.endswith("output") else "input"
        found.append(source.problem(f"/{side}/schema", f"can't be a contract: {error.problem}"))
    return found
