"""What a document may say to this gateway beside the DSL, in `metadata.gateway` of the document and of its tasks."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from gateway.workflows.dsl.constructs import ENTRY_NAME
from gateway.workflows.dsl.durations import EDITOR_PATTERN, milliseconds_of
from gateway.workflows.expressions.templates import expression_in
from registry.cards.budgets import WorkflowBudget
from registry.cards.effects import EFFECT_NAME, SUBJECT_NAME
from registry.cards.prices import as_price_text, check_price, parse_price

DEADLINE: Final = "P30D"
SECOND: Final = 1000  # milliseconds
DAY: Final = 86_400 * SECOND
PURPOSE_MAX: Final = 200  # characters


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


class BlockClaim(Extra):
    """A claim that a task holds from its beginning to its end (docs/conflicts.md). Durations are ISO 8601.

    `subject` and `purpose` may be expressions on the input of the task. `lease`: how long the claim outlives the gateway. `wait`: how long
    the run waits while others have the subject.
    """

    subject: str = Field(min_length=1, max_length=2000)
    effect: str = "*"
    purpose: str = Field("", max_length=2000)
    priority: int = Field(100, ge=0, le=1000)
    lease: str = Field("PT10M", json_schema_extra={"pattern": EDITOR_PATTERN})
    cool_down: str = Field("PT0S", alias="coolDown", json_schema_extra={"pattern": EDITOR_PATTERN})
    wait: str = Field("PT0S", json_schema_extra={"pattern": EDITOR_PATTERN})

    @field_validator("subject")
    @classmethod
    def _check_subject(cls, text: str) -> str:
        if "${" not in text and not SUBJECT_NAME.fullmatch(text):
            raise ValueError("is no subject such as customer:42, and no expression that makes one")
        return text

    @field_validator("effect")
    @classmethod
    def _check_effect(cls, text: str) -> str:
        if text != "*" and not EFFECT_NAME.fullmatch(text):
            raise ValueError("is no effect such as outbound-email, and not * for all effects")
        return text

    @field_validator("purpose")
    @classmethod
    def _check_purpose(cls, text: str) -> str:
        if expression_in(text) is None and (len(text) > PURPOSE_MAX or not text.isprintable()):
            raise ValueError(f"is not one line of text, of at most {PURPOSE_MAX} characters")
        return text

    @field_validator("lease")
    @classmethod
    def _check_lease(cls, text: str) -> str:
        return _check_length(text, 30 * SECOND, DAY, "30 seconds to a day")

    @field_validator("cool_down")
    @classmethod
    def _check_cool_down(cls, text: str) -> str:
        return _check_length(text, 0, 366 * DAY, "at most 366 days")

    @field_validator("wait")
    @classmethod
    def _check_wait(cls, text: str) -> str:
        return _check_length(text, 0, 366 * DAY, "at most 366 days")


def _check_length(text: str, least: int, most: int, words: str) -> str:
    """Returns a duration of whole seconds. Raises ValueError for one that is shorter or longer, in milliseconds."""
    found = milliseconds_of(text)
    if not least <= found <= most or found % SECOND:
        raise ValueError(f"is not {words}, in whole seconds")
    return text


class TaskExtras(Extra):
    """`kind`: whether a step computes or reasons. `min_confidence`: its answer is an error below that, or without `confidence`.

    `compensate`: the function that undoes the step when the run fails later. `idempotent`: doing it twice has the effect of doing it once,
    so a step whose outcome is unknown may be repeated. `claim`: what the task claims while it lasts. `sensitivity`: of the event that the
    task emits, where the author vouches that it is less sensitive than what the run has read.
    """

    kind: Literal["deterministic", "ai"] | None = None
    min_confidence: float | None = Field(None, alias="minConfidence", ge=0, le=1)
    confidence: str = ".confidence"
    check: Check | None = None
    compensate: str | None = None
    idempotent: bool = False
    claim: BlockClaim | None = None
    sensitivity: int | None = Field(None, ge=0, le=2, strict=True)


class DocumentMetadata(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    gateway: DocumentExtras = DocumentExtras()


class TaskMetadata(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    gateway: TaskExtras = TaskExtras()
