"""What a document may say to this gateway beside the DSL, in `metadata.gateway` of the document and of its tasks."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.workflows.dsl.constructs import ENTRY_NAME
from gateway.workflows.dsl.durations import EDITOR_PATTERN, milliseconds_of

DEADLINE: Final = "P30D"


class Extra(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class Concurrency(Extra):
    """`runs`: how many runs are at once, whoever starts them; `overlap`: what becomes of one more that a schedule or an event starts."""

    runs: int = Field(1000, ge=1, le=100_000)
    overlap: Literal["queue", "skip", "cancel-previous"] = "queue"


class ScheduleExtras(Extra):
    """`timezone`: of `cron`, a name such as Europe/Berlin; empty: UTC. `missed`: what becomes of moments of `cron` and `every` at which the
    gateway did not run. One run is started for all of them, none, or one for each.
    """

    timezone: str = Field("", max_length=64)
    missed: Literal["once", "skip", "all"] = "once"


class DocumentExtras(Extra):
    """`deadline`: ISO 8601, how long a run may take, waiting included.

    `run_as`: the service principal that runs act for which a schedule or an event starts.
    """

    deadline: str = Field(DEADLINE, json_schema_extra={"pattern": EDITOR_PATTERN})
    run_as: str | None = Field(None, alias="runAs", pattern=ENTRY_NAME)
    schedule: ScheduleExtras = ScheduleExtras()
    concurrency: Concurrency = Concurrency()
    tags: list[str] = Field([], max_length=20)
    examples: list[str] = Field([], max_length=20)

    @field_validator("deadline")
    @classmethod
    def _check_deadline(cls, text: str) -> str:
        milliseconds_of(text)
        return text

    @property
    def runs_max(self) -> int | None:
        """How many runs may be at once, or None where the document does not say."""
        return self.concurrency.runs if "runs" in self.concurrency.model_fields_set else None


class Check(Extra):
    """A second look at what an ai step returned: a rule that must hold, or another agent that must agree; else people decide."""

    rule: str | None = None
    agent: str | None = None


class TaskExtras(Extra):
    """`kind`: whether a step computes or reasons. `min_confidence`: its answer is an error below that, or without `confidence`.

    `compensate`: the function that undoes the step when the run fails later. `idempotent`: doing it twice has the effect of doing it once,
    so a step whose outcome is unknown may be repeated.
    """

    kind: Literal["deterministic", "ai"] | None = None
    min_confidence: float | None = Field(None, alias="minConfidence", ge=0, le=1)
    confidence: str = ".confidence"
    check: Check | None = None
    compensate: str | None = None
    idempotent: bool = False


class DocumentMetadata(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    gateway: DocumentExtras = DocumentExtras()


class TaskMetadata(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    gateway: TaskExtras = TaskExtras()
