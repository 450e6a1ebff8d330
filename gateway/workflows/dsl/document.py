"""The DSL's constructs as models: their shape, their defaults, and the JSON Schema that editors use.

Names and structure are those of the specification's chapter "Reference". What a document may say beside it stands in `metadata.gateway`
(`extras.py`). A member that the DSL does not know is refused, so that a typing error does not pass for a missing setting.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from gateway.workflows.dsl.durations import LONGEST, milliseconds_of
from gateway.workflows.dsl.extras import DocumentMetadata, TaskMetadata
from gateway.workflows.expressions.templates import expression_in

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$")]
Version = Annotated[
    str, Field(pattern=r"^(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})(?:[-+][0-9A-Za-z.+-]{1,64})?$")
]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
TaskName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^/\s~][^/~]*$")]


class Construct(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class Units(Construct):
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
Iso8601 = Annotated[str, Field(max_length=2000), BeforeValidator(_check_duration)]
Duration = Units | Iso8601
Object = dict[str, Any]


class Schema(Construct):
    """JSON Schema of an input, output or context; `document` holds it inline."""

    format: Literal["json", "json:draft-07", "json:2020-12"] = "json"
    document: dict[str, Any] | bool


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


class Endpoint(Construct):
    uri: str
    authentication: Object | None = None


class Resource(Construct):
    name: str | None = None
    endpoint: str | Endpoint

    @property
    def uri(self) -> str:
        return self.endpoint if isinstance(self.endpoint, str) else self.endpoint.uri


class Backoff(Construct):
    constant: Object | None = None
    linear: Object | None = None
    exponential: Object | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Backoff":
        if len(self.model_fields_set) != 1:
            raise ValueError("names one of constant, linear and exponential")
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

    one: EventFilter | None = None
    all: list[EventFilter] | None = Field(None, min_length=1, max_length=100)
    any: list[EventFilter] | None = Field(None, max_length=100)
    until: "Expression | Consumption | None" = None

    @model_validator(mode="after")
    def _is_one(self) -> "Consumption":
        if len({"one", "all", "any"} & self.model_fields_set) != 1:
            raise ValueError("names one of one, all and any")
        if self.until is not None and self.any is None:
            raise ValueError("`until` goes with `any`")
        if isinstance(self.until, Consumption) and self.until.until is not None:
            raise ValueError("`until` within `until`")
        return self


class TaskBase(Construct):
    if_: Expression | None = Field(None, alias="if")
    input: Input = Input()
    output: Output = Output()
    export: Output = Output()
    timeout: Timeout | str | None = None
    then: str | None = None
    metadata: TaskMetadata = TaskMetadata()


class HttpCall(Construct):
    method: str
    endpoint: str | Endpoint
    headers: dict[str, str] | Expression | None = None
    body: Any = None
    query: Object | Expression | None = None
    output: Literal["raw", "content", "response"] = "content"
    redirect: bool = False


class OpenApiCall(Construct):
    document: Resource
    operation_id: str = Field(alias="operationId")
    parameters: Object = {}
    authentication: Object | None = None
    output: Literal["raw", "content", "response"] = "content"
    redirect: bool = False


A2aMethod = Literal[
    "message/send", "message/stream", "tasks/get", "tasks/list", "tasks/cancel", "tasks/resubscribe",
    "tasks/pushNotificationConfig/set", "tasks/pushNotificationConfig/get", "tasks/pushNotificationConfig/list",
    "tasks/pushNotificationConfig/delete", "agent/getAuthenticatedExtendedCard",
]  # fmt: skip
McpMethod = Literal[
    "tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/read", "resources/templates/list"
]


class A2aCall(Construct):
    agent_card: Resource | None = Field(None, alias="agentCard")
    server: str | Endpoint | None = None
    method: A2aMethod
    parameters: Object | Expression = {}

    @model_validator(mode="after")
    def _has_target(self) -> "A2aCall":
        if self.agent_card is None and self.server is None:
            raise ValueError("names neither `agentCard` nor `server`")
        return self

    @property
    def uri(self) -> str:
        if self.agent_card is not None:
            return self.agent_card.uri
        return self.server if isinstance(self.server, str) else self.server.uri if self.server else ""


class HttpTransport(Construct):
    endpoint: str | Endpoint
    headers: dict[str, str] = {}


class McpTransport(Construct):
    http: HttpTransport | None = None
    stdio: Object | None = None
    options: dict[str, str] = {}

    @model_validator(mode="after")
    def _is_one(self) -> "McpTransport":
        if (self.http is None) == (self.stdio is None):
            raise ValueError("names one of http and stdio")
        return self


class McpCall(Construct):
    protocol_version: str = Field("2025-06-18", alias="protocolVersion")
    method: McpMethod
    parameters: Object | Expression = {}
    timeout: Duration | None = None
    transport: McpTransport
    client: Object | None = None


class CallHttp(TaskBase):
    call: Literal["http"]
    with_: HttpCall = Field(alias="with")


class CallOpenApi(TaskBase):
    call: Literal["openapi"]
    with_: OpenApiCall = Field(alias="with")


class CallA2a(TaskBase):
    call: Literal["a2a"]
    with_: A2aCall = Field(alias="with")


class CallMcp(TaskBase):
    call: Literal["mcp"]
    with_: McpCall = Field(alias="with")


class CallFunction(TaskBase):
    """A function of `use.functions`, or one of the gateway's own, whose names begin with `gateway.`."""

    call: str
    with_: Object = Field({}, alias="with")


class DoTask(TaskBase):
    do: "TaskList"


class Fork(Construct):
    branches: "TaskList"
    compete: bool = False


class ForkTask(TaskBase):
    fork: Fork


class Emission(Construct):
    with_: EventProperties = Field(alias="with")


class Emit(Construct):
    event: Emission


class EmitTask(TaskBase):
    emit: Emit


class Loop(Construct):
    each: Variable = "item"
    in_: Expression | list[Object] = Field(alias="in")
    at: Variable = "index"


class ForTask(TaskBase):
    for_: Loop = Field(alias="for")
    while_: Expression | None = Field(None, alias="while")
    do: "TaskList"


class Listen(Construct):
    to: Consumption
    read: Literal["data", "envelope", "raw"] = "data"


class Iterator(Construct):
    item: Variable = "item"
    at: Variable = "index"
    do: "TaskList" = []
    output: Output = Output()
    export: Output = Output()


class ListenTask(TaskBase):
    listen: Listen
    foreach: Iterator | None = None


class Raise(Construct):
    error: Error | str


class RaiseTask(TaskBase):
    raise_: Raise = Field(alias="raise")


class SubWorkflow(Construct):
    namespace: Name
    name: Name
    version: str = "latest"
    input: Object | Expression | None = None


class Run(Construct):
    """Another workflow. Scripts, shell commands and containers are recognized, so that their refusal says what they are."""

    workflow: SubWorkflow | None = None
    script: Object | None = None
    shell: Object | None = None
    container: Object | None = None
    await_: bool = Field(True, alias="await")
    return_: Literal["stdout", "stderr", "code", "all", "none"] = Field("stdout", alias="return")

    @model_validator(mode="after")
    def _is_one(self) -> "Run":
        if len({"workflow", "script", "shell", "container"} & self.model_fields_set) != 1:
            raise ValueError("names one of workflow, script, shell and container")
        return self


class RunTask(TaskBase):
    run: Run


class SetTask(TaskBase):
    set: Annotated[Object, Field(min_length=1)] | Expression


class Case(Construct):
    when: Expression | None = None
    then: str


class SwitchTask(TaskBase):
    switch: list[Annotated[dict[TaskName, Case], Field(min_length=1, max_length=1)]] = Field(min_length=1, max_length=200)


class ErrorFilter(Construct):
    type: str | None = None
    status: int | None = None
    instance: str | None = None
    title: str | None = None
    detail: str | None = None


class CaughtErrors(Construct):
    with_: ErrorFilter = Field(ErrorFilter(), alias="with")


class Catch(Construct):
    errors: CaughtErrors = CaughtErrors()
    as_: Variable = Field("error", alias="as")
    when: Expression | None = None
    except_when: Expression | None = Field(None, alias="exceptWhen")
    retry: RetryPolicy | str | None = None
    do: "TaskList" = []
    then: str | None = None


class TryTask(TaskBase):
    try_: "TaskList" = Field(alias="try")
    catch: Catch


class WaitTask(TaskBase):
    wait: Duration


KINDS: Mapping[str, str] = {
    "call": "call", "for": "for", "try": "try", "fork": "fork", "emit": "emit", "listen": "listen", "raise": "raise", "run": "run",
    "set": "set", "switch": "switch", "wait": "wait", "do": "do",
}  # fmt: skip
CALLS: Mapping[str, str] = {"http": "call http", "openapi": "call openapi", "a2a": "call a2a", "mcp": "call mcp"}


def kind_of(value: Any) -> str | None:
    """The kind of a task, by the member that only this kind has; None for what is no task."""
    if isinstance(value, TaskBase):
        value = value.model_dump(exclude_unset=True)
    if not isinstance(value, dict):
        return None
    kind = next((kind for member, kind in KINDS.items() if member in value), None)
    return CALLS.get(str(value["call"]), "call") if kind == "call" else kind


Task = Annotated[
    Annotated[CallHttp, Tag("call http")]
    | Annotated[CallOpenApi, Tag("call openapi")]
    | Annotated[CallA2a, Tag("call a2a")]
    | Annotated[CallMcp, Tag("call mcp")]
    | Annotated[CallFunction, Tag("call")]
    | Annotated[DoTask, Tag("do")]
    | Annotated[ForkTask, Tag("fork")]
    | Annotated[EmitTask, Tag("emit")]
    | Annotated[ForTask, Tag("for")]
    | Annotated[ListenTask, Tag("listen")]
    | Annotated[RaiseTask, Tag("raise")]
    | Annotated[RunTask, Tag("run")]
    | Annotated[SetTask, Tag("set")]
    | Annotated[SwitchTask, Tag("switch")]
    | Annotated[TryTask, Tag("try")]
    | Annotated[WaitTask, Tag("wait")],
    Discriminator(kind_of, custom_error_type="no_task", custom_error_message="is no task of the DSL: it has none of their members"),
]
TaskItem = Annotated[dict[TaskName, Task], Field(min_length=1, max_length=1)]
TaskList = Annotated[list[TaskItem], Field(max_length=1000)]


class Extension(Construct):
    extend: Literal["call", "composite", "emit", "for", "listen", "raise", "run", "set", "switch", "try", "wait", "all"]
    when: Expression | None = None
    before: TaskList = []
    after: TaskList = []


class Use(Construct):
    authentications: Object = {}
    errors: dict[str, Error] = {}
    extensions: list[Annotated[dict[str, Extension], Field(min_length=1, max_length=1)]] = Field([], max_length=50)
    functions: dict[str, Task] = {}
    retries: dict[str, RetryPolicy] = {}
    secrets: list[str] = []
    timeouts: dict[str, Timeout] = {}
    catalogs: Object = {}


class Schedule(Construct):
    every: Duration | None = None
    cron: str | None = None
    after: Duration | None = None
    on: Consumption | None = None
    read: Literal["data", "envelope", "raw"] = "data"


class About(Construct):
    dsl: Version
    namespace: Name
    name: Name
    version: Version
    title: str = ""
    summary: str = ""
    tags: Object = {}
    metadata: DocumentMetadata = DocumentMetadata()


class Evaluate(Construct):
    language: Literal["jq"] = "jq"
    mode: Literal["strict"] = "strict"


class Document(Construct):
    """A workflow as its author wrote it."""

    document: About
    input: Input = Input()
    use: Use = Use()
    do: TaskList = Field(min_length=1)
    timeout: Timeout | str | None = None
    output: Output = Output()
    schedule: Schedule | None = None
    evaluate: Evaluate = Evaluate()
