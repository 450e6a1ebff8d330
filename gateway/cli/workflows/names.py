"""What commands say of a workflow that the gateway does not know."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from gateway.cli.exit_codes import CommandError, NothingFound
from gateway.cli.http_client import connect

LIST_TODO = "interlock workflow list shows the ones you may see"
UNKNOWN = "There is no such"  # what the gateway says begins so


@contextmanager
def naming_workflow(name: str) -> Iterator[None]:
    """Names the workflow in the error of a request about it, and the one that may be meant.

    A hidden workflow and one that does not exist have the same error.
    """
    try:
        yield
    except NothingFound as unknown:
        if not unknown.message.startswith(UNKNOWN):
            raise
        raise NothingFound(f"There is no workflow {name}.{similar_workflow(name)}", LIST_TODO) from unknown


def similar_workflow(name: str) -> str:
    """` Did you mean …?` where the caller may see a workflow of a similar name, else the empty text."""
    try:
        with connect() as remote:
            known = [each["name"] for each in remote.list_all("/api/workflows")]
    except CommandError:
        return ""
    near = get_close_matches(name, known, 1)
    return f" Did you mean {near[0]}?" if near else ""
