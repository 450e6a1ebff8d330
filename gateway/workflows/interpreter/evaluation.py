"""Evaluates what a document says on the data of one run: expressions, templates and schemas."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import jsonschema_rs

from gateway.workflows.dsl.constructs import Duration, Input, Output, Schema, Units
from gateway.workflows.dsl.durations import LONGEST, milliseconds_of
from gateway.workflows.expressions.evaluator import Evaluator, ExpressionFailed
from gateway.workflows.expressions.templates import bare_expression, expression_in, fill
from gateway.workflows.interpreter.errors import WorkflowError, standard_error
from gateway.workflows.interpreter.scope import Scope

RUNTIME: Final = {"name": "Interlock", "version": "ow-1", "metadata": {}}
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
NOTHING: Final = object()


@dataclass(slots=True)
class Data:
    """What changes while a run goes on: the context that its tasks export to."""

    context: Any = None


@dataclass(frozen=True, slots=True)
class TaskAtWork:
    """The task at work, as `$task` shows it. `output` is NOTHING until there is one."""

    name: str
    definition: Mapping[str, Any]
    raw_input: Any
    started: int
    input: Any = NOTHING
    raw_output: Any = NOTHING
    output: Any = NOTHING


def moment(microseconds: int) -> dict[str, Any]:
    """A point in time as the DSL's dateTimeDescriptor."""
    at = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    return {
        "iso8601": at.isoformat().replace("+00:00", "Z"),
        "epoch": {"seconds": microseconds // 1_000_000, "milliseconds": microseconds // 1000},
    }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`workflow` is the run as `$workflow` shows it."""

    evaluator: Evaluator
    workflow: Mapping[str, Any]
    data: Data = field(default_factory=Data)
    _validators: dict[int, tuple[Schema, jsonschema_rs.Validator]] = field(default_factory=dict)
    _export_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def variables(self, scope: Scope, task: TaskAtWork | None) -> dict[str, Any]:
        """Every variable that an expression at this place may use (DSL 1.0.3, "Runtime expression arguments")."""
        found: dict[str, Any] = {**scope.variables, "context": self.data.context, "workflow": self.workflow, "runtime": RUNTIME}
        if task is not None:
            shown = {"name": task.name, "reference": scope.pointer, "definition": task.definition, "input": task.raw_input}
            found["task"] = {**shown, "startedAt": moment(task.started)}
            if task.raw_output is not NOTHING:
                found["task"]["output"] = task.raw_output
            if task.input is not NOTHING:
                found["input"] = task.input
            if task.output is not NOTHING:
                found["output"] = task.output
        return found

    async def value(self, template: Any, input: Any, scope: Scope, task: TaskAtWork | None) -> Any:
        """A value of the document with its `${ … }` filled in. Raises WorkflowError (expression)."""
        try:
            return await fill(self.evaluator, template, input, self.variables(scope, task))
        except ExpressionFailed as error:
            raise _expression_error(error, scope) from error

    async def bare(self, expression: Any, input: Any, scope: Scope, task: TaskAtWork | None) -> Any:
        """The value of a member that holds an expression with or without braces, or an object of templates. Raises WorkflowError."""
        if not isinstance(expression, str):
            return await self.value(expression, input, scope, task)
        try:
            return (await self.evaluator.evaluate([bare_expression(expression)], input, self.variables(scope, task)))[0]
        except ExpressionFailed as error:
            raise _expression_error(error, scope) from error

    async def holds(self, expression: str, input: Any, scope: Scope, task: TaskAtWork | None) -> bool:
        """Whether a condition is met: anything but false and null, as in jq."""
        return (await self.bare(expression, input, scope, task)) not in (False, None)

    async def duration(self, written: Duration, input: Any, scope: Scope, task: TaskAtWork | None) -> int:
        """Milliseconds. Raises WorkflowError (expression) when an expression's value is no duration."""
        if isinstance(written, Units):
            return written.total
        value = await self.value(written, input, scope, task)
        try:
            found = Units.model_validate(value).total if isinstance(value, dict) else milliseconds_of(str(value))
        except ValueError as error:
            raise standard_error("expression", "the value of a duration is no duration", scope.pointer) from error
        return min(found, LONGEST)

    async def uri(self, template: str, input: Any, scope: Scope, task: TaskAtWork | None) -> str:
        """A URI, of an expression or a template whose parameters are members of the input."""
        if expression_in(template) is not None:
            return str(await self.value(template, input, scope, task))
        members = input if isinstance(input, Mapping) else {}
        return _PARAMETER.sub(lambda match: _text(members.get(match[1], match[0])), template)

    def check(self, schema: Schema | None, value: Any, scope: Scope, what: str) -> None:
        """Raises WorkflowError (validation) when the value does not fit the schema."""
        if schema is None:
            return
        kept = self._validators.get(id(schema))
        if kept is None:
            kept = self._validators[id(schema)] = (schema, jsonschema_rs.validator_for(schema.document))
        for error in kept[1].iter_errors(value):
            path = "".join(f"/{step}" for step in error.instance_path)
            raise standard_error("validation", f"the {what} does not fit its schema at {path or '/'}: {error.message[:300]}", scope.pointer)

    async def transform_input(self, given: Input, raw: Any, scope: Scope, task: TaskAtWork | None) -> Any:
        """Raises WorkflowError (validation, expression)."""
        self.check(given.schema_, raw, scope, "input")
        return raw if given.from_ is None else await self.bare(given.from_, raw, scope, task)

    async def transform_output(self, given: Output, raw: Any, scope: Scope, task: TaskAtWork | None) -> Any:
        """Raises WorkflowError (validation, expression)."""
        output = raw if given.as_ is None else await self.bare(given.as_, raw, scope, task)
        self.check(given.schema_, output, scope, "output")
        return output

    async def export(self, given: Output, output: Any, scope: Scope, task: TaskAtWork) -> None:
        """Replaces the context of the run; one branch after the other, so that none loses what another adds.

        Raises WorkflowError (validation, expression).
        """
        async with self._export_lock:
            if given.as_ is not None:
                self.data.context = await self.bare(given.as_, output, scope, task)
            self.check(given.schema_, self.data.context, scope, "context")


def _expression_error(error: ExpressionFailed, scope: Scope) -> WorkflowError:
    return standard_error("expression", f"{error.expression[:200]}: {error}", scope.pointer)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
