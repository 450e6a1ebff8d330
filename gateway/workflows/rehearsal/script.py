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
            raise ValueError("needs exactly one of `output` and `error`")
        return self


class ScriptedClaim(ScriptPart):
    """What becomes of the claim of a task, which is granted otherwise: it is denied, or lost so long after it was taken."""

    denied: bool = False
    lost_after: Duration | None = Field(None, alias="lostAfter")


class Arrival(ScriptPart):
    """An event that comes from outside, so long after the start."""

    after: Duration = "PT0S"
    event: dict[str, Any]


class ExpectedRun(ScriptPart):
    """What must hold of the run; what is not named may be anything. `output` names members of an object that must have these values.

    `ran` and `not_ran` are names of tasks, `within` the longest virtual time the run may take. `calls` are JSON pointers of steps: exactly
    these were called, each as often as it stands there.
    """

    status: Literal["completed", "faulted", "waiting"] = "completed"
    output: Any = None
    error: dict[str, Any] = {}
    ran: list[str] = []
    not_ran: list[str] = Field([], alias="notRan")
    calls: list[str] | None = None
    events: list[dict[str, Any]] = []
    within: Duration | None = None


class RehearsalCase(ScriptPart):
    """One run. `answers` are given to steps by their name or JSON pointer; of a list each call takes the next, the last one for ever.

    `claims` says by the name or JSON pointer of a task what becomes of its claim.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: Any = {}
    answers: dict[str, ScriptedAnswer | list[ScriptedAnswer]] = {}
    claims: dict[str, ScriptedClaim] = {}
    events: list[Arrival] = []
    expect: ExpectedRun = ExpectedRun()


class Rehearsal(ScriptPart):
    """`workflow`: path of the document, relative to the file; left out, the document is given beside it.

    `answers` are those of every case that does not have its own for the same step.
    """

    workflow: str | None = None
    answers: dict[str, ScriptedAnswer | list[ScriptedAnswer]] = {}
    cases: list[RehearsalCase] = Field(min_length=1, max_length=1000)

    @model_validator(mode="before")
    @classmethod
    def _share_answers(cls, data: Any) -> Any:
        """Gives each case the common answers that it does not replace."""
        common, cases = (data.get("answers"), data.get("cases")) if isinstance(data, dict) else (None, None)
        if not isinstance(common, dict) or not isinstance(cases, list):
            return data
        return {**data, "cases": [_with_answers(case, common) for case in cases]}


def _with_answers(case: Any, common: dict[str, Any]) -> Any:
    own = case.get("answers", {}) if isinstance(case, dict) else None
    return {**case, "answers": common | own} if isinstance(own, dict) else case
