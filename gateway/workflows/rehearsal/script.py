"""The file of a rehearsal: what agents, tools and people answer, which events come, and what is expected of the run."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.workflows.dsl.constructs import Duration, Error


class ScriptPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ScriptedAnswer(ScriptPart):
    """One answer to a step: an output or an error, after some time."""

    output: Any = None
    error: Error | None = None
    after: Duration | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "ScriptedAnswer":
        if ("output" in self.model_fields_set) == (self.error is not None):
            raise ValueError("has one of output and error")
        return self


class Arrival(ScriptPart):
    """An event that comes from outside, so long after the start."""

    after: Duration = "PT0S"
    event: dict[str, Any]


class ExpectedRun(ScriptPart):
    """What must hold of the run; what is not named may be anything. `output` names members of an object that must have these values.

    `ran` and `not_ran` are names of tasks, `within` the longest virtual time the run may take.
    """

    status: Literal["completed", "faulted", "waiting"] = "completed"
    output: Any = None
    error: dict[str, Any] = {}
    ran: list[str] = []
    not_ran: list[str] = Field([], alias="notRan")
    events: list[dict[str, Any]] = []
    within: Duration | None = None


class RehearsalCase(ScriptPart):
    """One run. `answers` are given to steps by their name or JSON pointer; of a list each call takes the next, the last one for ever."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: Any = {}
    answers: dict[str, ScriptedAnswer | list[ScriptedAnswer]] = {}
    events: list[Arrival] = []
    expect: ExpectedRun = ExpectedRun()


class Rehearsal(ScriptPart):
    """`workflow`: path of the document, relative to the file; left out, the document is given beside it."""

    workflow: str | None = None
    cases: list[RehearsalCase] = Field(min_length=1, max_length=1000)
