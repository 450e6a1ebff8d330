"""What an expression may see at one place of a run, and where in the document and its loops that place is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.workflows.interpreter.effects import StepKey


@dataclass(frozen=True, slots=True)
class Scope:
    """A place in the document. `variables`: those of loops and handlers around it, without the DSL's own."""

    pointer: str = ""
    visits: tuple[int, ...] = ()
    attempts: tuple[int, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    in_extension: bool = False
    is_deterministic: bool = False

    def enter(self, *steps: str | int) -> "Scope":
        """The place of a member of this one."""
        return replace(self, pointer=self.pointer + "".join(f"/{step}" for step in steps))

    def visit(self, count: int) -> "Scope":
        """This place, entered for the given time."""
        return replace(self, visits=(*self.visits, count))

    def attempt(self, count: int) -> "Scope":
        return replace(self, attempts=(*self.attempts, count))

    def bind(self, variables: Mapping[str, Any]) -> "Scope":
        return replace(self, variables={**self.variables, **variables})

    @property
    def key(self) -> StepKey:
        return StepKey(self.pointer, self.visits, self.attempts)
