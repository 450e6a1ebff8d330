"""The file of a rehearsal: what agents, tools and people answer, which events come, and what is expected of the run."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.workflows.dsl.document import Duration, Error


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Answer(Part):
    """One answer to a step: an output or an error, after some time."""

    output: Any = None
    error: Error | None = None
    after: Duration | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Answer":
        if ("output" in self.model_fields_set) == (self.error is not None):
            raise ValueError("has one of output and error")
        return self


class Arrival(Part):
    """An event that comes from outside, so long after the start."""

    after: Duration = "PT0S"
    event: dict[str, Any]


class Expectation(Part):
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


class Case(Part):
    """One run. `answers` are given to steps by their name or JSON pointer; of a list each call takes the next, the last one for ever."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: Any = {}
    answers: dict[str, Answer | list[Answer]] = {}
    events: list[Arrival] = []
    expect: Expectation = Expectation()


class Rehearsal(Part):
    """`workflow`: path of the document, relative to the file; left out, the document is given beside it."""

    workflow: str | None = None
    cases: list[Case] = Field(min_length=1, max_length=1000)
