"""What a document may say to this gateway beside the DSL, in `metadata.gateway` of the document and of its tasks."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from gateway.workflows.dsl.constructs import ENTRY_NAME
from gateway.workflows.dsl.durations import EDITOR_PATTERN, milliseconds_of
from registry.cards.budgets import WorkflowBudget
from registry.cards.prices import as_price_text, check_price, parse_price

DEADLINE: Final = "P30D"


class Extra(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class Concurrency(Extra):
    """`runs`: how many runs of all starters are at once; `overlap`: what becomes of one more that a schedule or an event starts."""

    runs: int = Field(1000, ge=1, le=100_000)
    overlap: Literal["queue", "skip", "cancel-previous"] = "queue"


Amount = Annotated[str, BeforeValidator(as_price_text), AfterValidator(check_price)]


class Budget(Extra):
    """What one run, and what all runs of a day in UTC, may cost in the currency of the gateway."""

    per_run: Amount | None = Field(None, alias="perRun")
    per_day: Amount | None = Field(None, alias="perDay")


class DocumentExtras(Extra):
    """`deadline`: ISO 8601, how long a run may take, waiting included.

    `run_as`: the service principal that runs act for which a schedule or an event starts.
    """

    deadline: str = Field(DEADLINE, json_schema_extra={"pattern": EDITOR_PATTERN})
    run_as: str | None = Field(None, alias="runAs", pattern=ENTRY_NAME)
    concurrency: Concurrency = Concurrency()
    budget: Budget = Budget()
    tags: list[str] = Field([], max_length=20)
    examples: list[str] = Field([], max_length=20)

    @field_validator("deadline")
    @classmethod
    def _check_deadline(cls, text: str) -> str:
        milliseconds_of(text)
        return text

    @property
    def cost_budget(self) -> WorkflowBudget:
        """The budget in millionths."""
        return WorkflowBudget(*(None if text is None else parse_price(text) for text in (self.budget.per_run, self.budget.per_day)))

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
