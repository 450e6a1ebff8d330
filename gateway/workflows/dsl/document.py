"""The DSL's constructs as models: their shape, their defaults, and the JSON Schema that editors use.

Names and structure are those of the specification's chapter "Reference". What a document may say beside it stands in `metadata.gateway`
(`extras.py`). A member that the DSL does not know is refused, so that a typing error does not pass for a missing setting.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from gateway.workflows.dsl.constructs import (
    Construct,
    Consumption,
    Duration,
    Endpoint,
    Error,
    EventProperties,
    Expression,
    Input,
    Name,
    Object,
    Output,
    Resource,
    RetryPolicy,
    TaskName,
    Timeout,
    Variable,
    Version,
    one_of,
)
from gateway.workflows.dsl.extras import DocumentMetadata, TaskMetadata

CALLS: Mapping[str, str] = {"http": "call http", "openapi": "call openapi", "a2a": "call a2a", "mcp": "call mcp"}


class TaskBase(Construct):
    if_: Expression | None = Field(None, alias="if")
    input: Input = Input()
    output: Output = Output()
    export: Output = Output()
    timeout: Timeout | str | None = None
    then: str | None = None
    metadata: TaskMetadata = TaskMetadata()


class HttpCallArguments(Construct):
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
    parameters: Object = Field(default_factory=dict)
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
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["agentCard"]}, {"required": ["server"]}]})

    agent_card: Resource | None = Field(None, alias="agentCard")
    server: str | Endpoint | None = None
    method: A2aMethod
    parameters: Object | Expression = Field(default_factory=dict)

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
    headers: dict[str, str] = Field(default_factory=dict)


class McpTransport(Construct):
    model_config = one_of("http", "stdio")

    http: HttpTransport | None = None
    stdio: Object | None = None
    options: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_one(self) -> "McpTransport":
        if (self.http is None) == (self.stdio is None):
            raise ValueError("needs exactly one of `http` and `stdio`")
        return self


class McpCall(Construct):
    protocol_version: str = Field("2025-06-18", alias="protocolVersion")
    method: McpMethod
    parameters: Object | Expression = Field(default_factory=dict)
    timeout: Duration | None = None
    transport: McpTransport
    client: Object | None = None


class CallHttp(TaskBase):
    call: Literal["http"]
    with_: HttpCallArguments = Field(alias="with")


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

    call: str = Field(json_schema_extra={"not": {"enum": [*CALLS]}})
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
    do: "TaskList" = Field(default_factory=list)
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

    model_config = one_of("workflow", "script", "shell", "container")

    workflow: SubWorkflow | None = None
    script: Object | None = None
    shell: Object | None = None
    container: Object | None = None
    await_: bool = Field(True, alias="await")
    return_: Literal["stdout", "stderr", "code", "all", "none"] = Field("stdout", alias="return")

    @model_validator(mode="after")
    def _is_one(self) -> "Run":
        if len({"workflow", "script", "shell", "container"} & self.model_fields_set) != 1:
            raise ValueError("needs exactly one of `workflow`, `script`, `shell` and `container`")
        return self


class RunTask(TaskBase):
    run: Run


class SetTask(TaskBase):
    set: Annotated[Object, Field(min_length=1)] | Expression


class SwitchCase(Construct):
    when: Expression | None = None
    then: str


class SwitchTask(TaskBase):
    switch: list[Annotated[dict[TaskName, SwitchCase], Field(min_length=1, max_length=1)]] = Field(min_length=1, max_length=200)


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
    do: "TaskList" = Field(default_factory=list)
    then: str | None = None


class TryTask(TaskBase):
    try_: "TaskList" = Field(alias="try")
    catch: Catch


class WaitTask(TaskBase):
    wait: Duration


KIND_MEMBERS = ("call", "for", "try", "fork", "emit", "listen", "raise", "run", "set", "switch", "wait", "do")


COMPOSITE = ("do", "fork", "try", "for")  # kinds of tasks with tasks within


def kind_of(value: Any) -> str | None:
    """The kind of a task, by the member that only this kind has; None for what is no task."""
    if isinstance(value, TaskBase):
        value = value.model_dump(exclude_unset=True)
    if not isinstance(value, dict):
        return None
    kind = next((member for member in KIND_MEMBERS if member in value), None)
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
    before: TaskList = Field(default_factory=list)
    after: TaskList = Field(default_factory=list)


class Use(Construct):
    authentications: Object = Field(default_factory=dict)
    errors: dict[str, Error] = Field(default_factory=dict)
    extensions: list[Annotated[dict[str, Extension], Field(min_length=1, max_length=1)]] = Field([], max_length=50)
    functions: dict[str, Task] = Field(default_factory=dict)
    retries: dict[str, RetryPolicy] = Field(default_factory=dict)
    secrets: list[str] = Field(default_factory=list)
    timeouts: dict[str, Timeout] = Field(default_factory=dict)
    catalogs: Object = Field(default_factory=dict)


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
    tags: Object = Field(default_factory=dict)
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
