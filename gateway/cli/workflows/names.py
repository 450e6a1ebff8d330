"""What commands say of a workflow that the gateway does not know."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.cli.exit_codes import NothingFound

LIST_TODO = "interlock workflow list shows the ones you may see"


@contextmanager
def naming_workflow(name: str) -> Iterator[None]:
    """Names the workflow in the error of a request about it. A hidden one and one that does not exist have the same error."""
    try:
        yield
    except NothingFound as unknown:
        raise NothingFound(f"There is no workflow {name}.", LIST_TODO) from unknown
