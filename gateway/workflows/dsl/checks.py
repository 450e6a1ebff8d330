"""What the shape of a document does not show: whether its parts fit each other. Every problem is found at once."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from gateway.workflows.dsl.checkpoints import CHECKPOINTS, checkpoint_problems
from gateway.workflows.dsl.constructs import Resource
from gateway.workflows.dsl.coordination import agent_argument_problems, plan_argument_problems
from gateway.workflows.dsl.determinism import COMPUTE, REASONING, determinism_problems
from gateway.workflows.dsl.document import (
    CALLS,
    CallA2a,
    CallFunction,
    CallHttp,
    CallMcp,
    CallOpenApi,
    Document,
    EmitTask,
    RaiseTask,
    RunTask,
    SwitchTask,
    TaskBase,
    TryTask,
)
from gateway.workflows.dsl.extras import TaskExtras
from gateway.workflows.dsl.loading import Source, pointer
from gateway.workflows.dsl.targets import agent_of
from gateway.workflows.dsl.walk import TaskList, case_targets, expressions, schemas, task_lists, tasks
from gateway.workflows.dsl.wording import expression_reason, schema_problems, suggestion
from gateway.workflows.expressions.evaluator import Evaluator, ExpressionFailed
from gateway.workflows.expressions.templates import bare_expression, expression_in
from gateway.workflows.problems import DocumentRefused

DIRECTIVES: Final = ("continue", "exit", "end")
NOT_RUN: Final = {
    "grpc": "calls by gRPC are not supported; register the service as an agent or a server",
    "asyncapi": "calls by AsyncAPI are not supported; use emit and listen",
}
FUNCTIONS: Final = (
    *CHECKPOINTS,
    "gateway.plan",
    COMPUTE,
    "gateway.agent",
    "gateway.tool",
)
AI_STEP: Final = "metadata: {gateway: {kind: ai}}"
CONTRACT: Final = "{schema: {document: {type: object}}}"  # of what an ai step gets or returns
TASKS_MAX: Final = 1000
EXPRESSIONS_MAX: Final = 5000
FUNCTIONS_PATH: Final = "/use/functions"
Found = Iterator[tuple[str, str]]


async def check_document(document: Document, source: Source, evaluator: Evaluator) -> None:
    """Raises DocumentRefused with everything that is wrong with a document taken by itself; the registry is not asked."""
    if problems := [source.problem(*each) for each in _size_problems(document)]:  # of a document that is too large, nothing else is checked
        raise DocumentRefused(tuple(problems))
    found = [*_document_problems(document), *_lists(document), *_each_task(document), *_schemas(document), *determinism_problems(document)]
    found += [each async for each in _expressions(document, evaluator)]
    if found:
        raise DocumentRefused(tuple(sorted(source.problem(path, reason) for path, reason in set(found))))


def _size_problems(document: Document) -> Found:
    if _is_longer(tasks(document), TASKS_MAX):
        yield "/do", f"has more than {TASKS_MAX} tasks"
    if _is_longer((each for each in expressions(document) if each.bare or "${" in each.text), EXPRESSIONS_MAX):
        yield "", f"has more than {EXPRESSIONS_MAX} expressions"


def _is_longer(items: Iterator[Any], most: int) -> bool:
    return next(islice(items, most, None), None) is not None


def _document_problems(document: Document) -> Found:
    if not document.document.dsl.startswith("1.0."):
        yield "/document/dsl", "is a version of the DSL that is not supported; 1.0.3 is"
    for member in ("secrets", "authentications", "catalogs"):
        if getattr(document.use, member):
            yield f"/use/{member}", "is not taken from a document: credentials and functions belong to agents and servers of the registry"
    if isinstance(document.timeout, str) and document.timeout not in document.use.timeouts:
        yield (
            "/timeout",
            _lacking("a timeout", document.timeout, "timeouts", document),
        )
    if document.schedule is not None and len(document.schedule.model_fields_set - {"read"}) != 1:
        yield "/schedule", "needs exactly one of `every`, `cron`, `after` and `on`"
    yield from _function_circles(document)


def _lacking(what: str, name: str, member: str, document: Document) -> str:
    """Why a name is refused that a member of `use` lacks."""
    return f"names {what} `{name}` that `use.{member}` lacks{suggestion(name, getattr(document.use, member))}"


def _function_circles(document: Document) -> Found:
    """Functions that lead to themselves: their calls would never end."""
    leads: dict[str, set[str]] = {name: set() for name in document.use.functions}
    names = {pointer(name): name for name in leads}
    for each in tasks(document):
        if each.path.startswith(FUNCTIONS_PATH) and isinstance(each.task, CallFunction):
            step = each.path.removeprefix(FUNCTIONS_PATH).split("/", 2)[1]
            leads[names[f"/{step}"]].add(each.task.call)
    for name in leads:
        seen: set[str] = set()
        ahead = [name]
        while ahead:
            for following in leads.get(ahead.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    ahead.append(following)
        if name in seen:
            yield f"{FUNCTIONS_PATH}{pointer(name)}", "calls itself, directly or through other functions"


def _lists(document: Document) -> Found:
    for listed in task_lists(document):
        names = Counter(name for item in listed.items for name in item)
        yield from ((listed.path, f"has two tasks of the name `{name}`") for name, count in names.items() if count > 1)
        for index, item in enumerate(listed.items):
            for name, task in item.items():
                yield from _directives(task, f"{listed.path}/{index}{pointer(name)}", listed, names)


def _directives(task: TaskBase, path: str, listed: TaskList, names: Mapping[str, int]) -> Found:
    directives = [(f"{path}/then", task.then)]
    if isinstance(task, SwitchTask):
        directives += [(path + end, case.then) for end, case in case_targets(task)]
    if isinstance(task, TryTask):
        directives.append((f"{path}/catch/then", task.catch.then))
    for where, then in directives:
        if then is not None and listed.are_branches:
            yield where, "leads from one branch of a fork to another, and branches have no order"
        elif then is not None and then not in DIRECTIVES and then not in names:
            yield where, f"leads to `{then}`, which is no task beside it{suggestion(then, (*names, *DIRECTIVES))}"


def _each_task(document: Document) -> Found:
    for placed in tasks(document):
        task, path = placed.task, placed.path
        if isinstance(task.timeout, str) and task.timeout not in document.use.timeouts:
            yield (
                f"{path}/timeout",
                _lacking("a timeout", task.timeout, "timeouts", document),
            )
        match task:
            case SwitchTask(switch=cases) if sum(case.when is None for item in cases for case in item.values()) > 1:
                yield f"{path}/switch", "has more than one case without `when`"
            case TryTask(catch=catch) if isinstance(catch.retry, str) and catch.retry not in document.use.retries:
                yield (
                    f"{path}/catch/retry",
                    _lacking("a retry policy", catch.retry, "retries", document),
                )
            case RaiseTask(raise_=raised) if isinstance(raised.error, str) and raised.error not in document.use.errors:
                yield (
                    f"{path}/raise/error",
                    _lacking("an error", raised.error, "errors", document),
                )
            case RunTask(run=run) if run.workflow is None:
                yield f"{path}/run", "scripts, shell commands and containers are not run; call a tool, or `gateway.compute`"
        yield from _calls(document, task, path)
        yield from _kind_of_step(document, task, path)


def _calls(document: Document, task: TaskBase, path: str) -> Found:
    match task:
        case CallFunction(call=name) if name in NOT_RUN:
            yield f"{path}/call", NOT_RUN[name]
        case CallFunction(call=name) if name not in document.use.functions and name not in FUNCTIONS:
            meant = suggestion(name, (*document.use.functions, *FUNCTIONS, *CALLS))
            yield f"{path}/call", f"is no function of `use.functions` and none of the gateway's: {', '.join(FUNCTIONS)}{meant}"
        case CallFunction(call=name, with_=given) if name == COMPUTE:
            yield from _computation(given, path)
        case CallFunction(call=name, with_=arguments) if name in CHECKPOINTS:
            yield from ((f"{path}/with{at}", reason) for at, reason in checkpoint_problems(name, arguments))
        case CallFunction(call="gateway.plan", with_=arguments):
            yield from ((f"{path}/with{at}", reason) for at, reason in plan_argument_problems(arguments))
        case CallFunction(call="gateway.agent", with_=arguments):
            yield from ((f"{path}/with{at}", reason) for at, reason in agent_argument_problems(arguments))
        case CallMcp(with_=call) if call.transport.stdio is not None:
            yield f"{path}/with/transport/stdio", "starts a program, which no document may; register the server and name it instead"
    for where in ("endpoint", "server", "agentCard", "document"):
        if _has_credentials(task, where):
            yield f"{path}/with/{where}", "carries credentials; they belong to the registered agent or server"


def _computation(given: Mapping[str, Any], path: str) -> Found:
    code = given.get("code")
    if not isinstance(code, str) or not code.strip() or expression_in(code) is not None:
        yield f"{path}/with", "names no `code` as a plain text"
    inputs = given.get("inputs", {})
    if isinstance(inputs, Mapping):
        for name in inputs:
            if not name.isidentifier():
                yield f"{path}/with/inputs{pointer(name)}", "is no name of a variable"
    elif not isinstance(inputs, str) or expression_in(inputs) is None:
        yield f"{path}/with/inputs", "is no object"


def _has_credentials(task: TaskBase, member: str) -> bool:
    if not isinstance(task, CallHttp | CallOpenApi | CallA2a | CallMcp):
        return False
    value = task.with_.model_dump(exclude_unset=True).get(member)
    if isinstance(value, Mapping):
        value = value.get("endpoint", value)
    return isinstance(value, Mapping) and value.get("authentication") is not None


def _kind_of_step(document: Document, task: TaskBase, path: str) -> Found:
    extras = task.metadata.gateway
    at = f"{path}/metadata/gateway"
    reasons = isinstance(task, CallA2a) or (isinstance(task, CallFunction) and task.call in REASONING)
    if extras.kind == "ai" or (reasons and extras.kind is None and _sends_message(task)):
        missing = [] if extras.kind == "ai" else [AI_STEP]
        missing += [f"{side}: {CONTRACT}" for side in ("input", "output") if getattr(task, side).schema_ is None]
        if missing:
            yield path, f"is a step in which an agent reasons; it also needs, with a contract of yours: {', '.join(missing)}"
    if extras.sensitivity is not None and not isinstance(task, EmitTask):
        yield f"{at}/sensitivity", "is declared only of tasks that emit an event"
    yield from _second_looks(document, task, extras, at)


def _sends_message(task: TaskBase) -> bool:
    return not isinstance(task, CallA2a) or task.with_.method in ("message/send", "message/stream")


def _second_looks(document: Document, task: TaskBase, extras: TaskExtras, path: str) -> Found:
    if extras.kind != "ai" and (extras.min_confidence is not None or extras.check is not None):
        yield path, "asks for confidence or a check of a step that is not `kind: ai`"
    if extras.check is not None and extras.check.agent is not None and extras.check.agent == agent_of(task):
        yield f"{path}/check/agent", "is the agent whose answer is checked; name another one"
    if extras.check is not None and (extras.check.rule is None) == (extras.check.agent is None):
        yield f"{path}/check", "needs exactly one of `rule` and `agent`"
    if extras.compensate is not None and extras.compensate not in document.use.functions:
        yield (
            f"{path}/compensate",
            _lacking("a function", extras.compensate, "functions", document),
        )


def _schemas(document: Document) -> Found:
    for path, schema in schemas(document):
        if isinstance(schema, Resource):
            yield path, "is not fetched from elsewhere; write the schema out as `document`"
            continue
        if (foreign := _foreign_reference(schema)) is not None:
            yield path, f"refers to `{foreign[:100]}`, which is outside the document"
            continue
        yield from ((f"{path}{pointer(*steps)}", reason) for steps, reason in schema_problems(schema))


def _foreign_reference(schema: Any) -> str | None:
    """A `$ref` that leads out of the schema."""
    if isinstance(schema, Mapping):
        for name, member in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(member, str) and not member.startswith("#"):
                return member
            if (found := _foreign_reference(member)) is not None:
                return found
    elif isinstance(schema, list):
        for element in schema:
            if (found := _foreign_reference(element)) is not None:
                return found
    return None


async def _expressions(document: Document, evaluator: Evaluator) -> AsyncIterator[tuple[str, str]]:
    for each in expressions(document):
        text = bare_expression(each.text) if each.bare else expression_in(each.text)
        if text is None:
            if "${" in each.text:
                yield each.path, "has `${` within a text; an expression is the whole text, and joins others by \\( … )"
            continue
        try:
            await evaluator.compile([text], sorted(each.variables))
        except ExpressionFailed as error:
            yield each.path, expression_reason(text, str(error))
