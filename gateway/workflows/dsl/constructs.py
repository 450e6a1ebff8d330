"""The parts that tasks and documents of the DSL are made of: names, durations, schemas, errors, retries, events."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.workflows.dsl.durations import EDITOR_PATTERN, LONGEST, milliseconds_of
from gateway.workflows.expressions.templates import expression_in

NAME: Final = r"^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$"
VERSION: Final = r"^(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})(?:[-+][0-9A-Za-z.+-]{1,64})?$"
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
TASK_NAME: Final = r"^[^/\s~][^/~]*$"
ENTRY_NAME: Final = r"^[a-z0-9-]{1,64}$"  # of an agent, a server or a service principal
TOOL_NAME: Final = r"^[a-z0-9-]{1,64}\.[^\s$]{1,128}$"
STEP_NAME: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"  # of a step of a plan
POINTER: Final = r"^(/[^/]*)*$"
NO_EXPRESSION: Final = r"^[^$]*$"
RULES_OF_TEXTS: Final[Mapping[str, str]] = {  # what is wrong with a text that does not match
    NAME: "is not 1 to 63 letters from a to z or A to Z, digits and hyphens, with a letter or a digit at both ends",
    VERSION: "is no version of three numbers, such as 1.0.0",
    VARIABLE: "is not 1 to 64 letters from a to z or A to Z, digits and _, with no digit at its beginning",
    TASK_NAME: "begins with a space, or has / or ~",
    ENTRY_NAME: "is not 1 to 64 letters from a to z, digits and hyphens",
    TOOL_NAME: "is no tool; write the name of its server, a dot and its own name, such as crm.find",
    STEP_NAME: "is not 1 to 64 letters from a to z or A to Z, digits, _ and hyphens, with a letter at its beginning",
    POINTER: "is no JSON pointer, such as /items/0",
    NO_EXPRESSION: "has `$`; no expression is allowed here",
}
Name = Annotated[str, Field(pattern=NAME)]
Version = Annotated[str, Field(pattern=VERSION)]
Variable = Annotated[str, Field(pattern=VARIABLE)]
TaskName = Annotated[str, Field(min_length=1, max_length=100, pattern=TASK_NAME)]


class Construct(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


def one_of(*names: str) -> ConfigDict:
    """Says in the JSON Schema for editors that a construct has exactly one of these members."""
    return ConfigDict(json_schema_extra={"oneOf": [{"required": [name]} for name in names]})


class Units(Construct):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    days: int = Field(0, ge=0)
    hours: int = Field(0, ge=0)
    minutes: int = Field(0, ge=0)
    seconds: int = Field(0, ge=0)
    milliseconds: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _is_some_time(self) -> "Units":
        if not self.model_fields_set:
            raise ValueError("names no unit")
        if self.total > LONGEST:
            raise ValueError("is longer than ten years")
        return self

    @property
    def total(self) -> int:
        """Milliseconds."""
        return ((((self.days * 24) + self.hours) * 60 + self.minutes) * 60 + self.seconds) * 1000 + self.milliseconds


def _check_duration(value: Any) -> Any:
    if isinstance(value, str) and expression_in(value) is None:
        milliseconds_of(value)
    return value


Expression = Annotated[str, Field(min_length=1, max_length=20_000)]
Iso8601 = Annotated[
    str,
    Field(max_length=2000, json_schema_extra={"pattern": rf"^\s*\$\{{[\s\S]*\}}\s*$|{EDITOR_PATTERN}"}),
    BeforeValidator(_check_duration),
]
Duration = Units | Iso8601
Object = dict[str, Any]


class Endpoint(Construct):
    uri: str
    authentication: Object | None = None


class Resource(Construct):
    name: str | None = None
    endpoint: str | Endpoint

    @property
    def uri(self) -> str:
        return self.endpoint if isinstance(self.endpoint, str) else self.endpoint.uri


class Schema(Construct):
    """JSON Schema of an input, output or context; `document` holds it inline. `resource` is refused with its own reason."""

    model_config = one_of("document", "resource")

    format: Literal["json", "json:draft-07", "json:2020-12"] = "json"
    document: dict[str, Any] | bool = True
    resource: Resource | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Schema":
        if len({"document", "resource"} & self.model_fields_set) != 1:
            raise ValueError("needs exactly one of `document` and `resource`")
        return self


class Input(Construct):
    schema_: Schema | None = Field(None, alias="schema")
    from_: Expression | Object | None = Field(None, alias="from")


class Output(Construct):
    schema_: Schema | None = Field(None, alias="schema")
    as_: Expression | Object | None = Field(None, alias="as")


class Timeout(Construct):
    after: Duration


class Error(Construct):
    type: Annotated[str, Field(min_length=1, max_length=500)]
    status: int = Field(ge=100, le=599)
    instance: str | None = None
    title: str | None = None
    detail: str | None = None


class Backoff(Construct):
    model_config = one_of("constant", "linear", "exponential")

    constant: Object | None = None
    linear: Object | None = None
    exponential: Object | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Backoff":
        if len(self.model_fields_set) != 1:
            raise ValueError("needs exactly one of `constant`, `linear` and `exponential`")
        return self


class AttemptLimit(Construct):
    count: int | None = Field(None, ge=0, le=1000)
    duration: Duration | None = None


class RetryLimit(Construct):
    attempt: AttemptLimit = AttemptLimit()
    duration: Duration | None = None


class Jitter(Construct):
    from_: Duration = Field(alias="from")
    to: Duration


class RetryPolicy(Construct):
    when: Expression | None = None
    except_when: Expression | None = Field(None, alias="exceptWhen")
    delay: Duration | None = None
    backoff: Backoff | None = None
    limit: RetryLimit = RetryLimit()
    jitter: Jitter | None = None


class EventProperties(BaseModel):
    """Attributes of a CloudEvent; those of its extensions may stand beside them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str | None = None
    id: str | None = None
    source: str | None = None
    time: str | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: Any = None


class Correlation(Construct):
    from_: Expression = Field(alias="from")
    expect: str | None = None


class EventFilter(Construct):
    with_: EventProperties = Field(alias="with")
    correlate: dict[Variable, Correlation] = {}


class Consumption(Construct):
    """Which events are waited for: `one`, `all`, or `any`, the last until something holds."""

    model_config = one_of("one", "all", "any")

    one: EventFilter | None = None
    all: list[EventFilter] | None = Field(None, min_length=1, max_length=100)
    any: list[EventFilter] | None = Field(None, max_length=100)
    until: "Expression | Consumption | None" = None

    @model_validator(mode="after")
    def _is_one(self) -> "Consumption":
        if len({"one", "all", "any"} & self.model_fields_set) != 1:
            raise ValueError("needs exactly one of `one`, `all` and `any`")
        if self.until is not None and self.any is None:
            raise ValueError("`until` goes with `any`")
        if isinstance(self.until, Consumption) and self.until.until is not None:
            raise ValueError("`until` within `until`")
        return self
