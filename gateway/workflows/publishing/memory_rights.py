"""The memory that a document uses by the tools of the server `memory`: permissions for its ceiling, and what its entry says of it."""

from collections.abc import Collection, Iterator
from typing import Final

from gateway.workflows.publishing.needs import Need

MEMORY_SERVER: Final = "memory"  # gateway/ingress/built_in/memory.py
READING: Final = "search"  # the tool that only reads


def memory_of(needs: Collection[Need]) -> str:
    """What runs may do with memory: none, read or write."""
    tools = {need.tool for need in needs if need.name == MEMORY_SERVER}
    return "none" if not tools else "write" if tools - {READING} else "read"


def memory_permissions(workflow: str, needs: Collection[Need]) -> Iterator[str]:
    """The permissions for the memory of the run's person, and for the workflow's own; a run has them as far as its person does."""
    memory = memory_of(needs)
    verbs = {"none": (), "read": ("read",), "write": ("read", "write")}[memory]
    for verb in verbs:
        yield f"memory:{verb}:person"
        yield f"memory:{verb}:workflow:{workflow}"
