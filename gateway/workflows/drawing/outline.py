"""A document as nested blocks, which every picture is made of."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from gateway.workflows.dsl.constructs import Units
from gateway.workflows.dsl.determinism import PEOPLE
from gateway.workflows.dsl.document import (
    CallA2a,
    CallFunction,
    CallHttp,
    CallMcp,
    CallOpenApi,
    Document,
    DoTask,
    EmitTask,
    ForkTask,
    ForTask,
    ListenTask,
    RaiseTask,
    RunTask,
    SetTask,
    SwitchTask,
    TaskBase,
    TryTask,
    WaitTask,
)
from gateway.workflows.dsl.loading import pointer


class Nature(StrEnum):
    """Whether a step reasons, computes, waits for people or events, or only leads on."""

    AI = "ai"
    FIXED = "fixed"
    PEOPLE = "people"
    WAIT = "wait"
    FLOW = "flow"


class Block(Struct, frozen=True):
    """One task. `says` is what it does in a few words; `parts` are the lists of tasks within it, each with a label.

    `cases` are the ways on from a switch: label and directive. `parallel`: its parts run at once.
    """

    path: str
    name: str
    nature: Nature
    says: str
    parts: tuple[tuple[str, tuple["Block", ...]], ...] = ()
    cases: tuple[tuple[str, str], ...] = ()
    then: str = "continue"
    parallel: bool = False


def outline_of(document: Document) -> tuple[Block, ...]:
    return _blocks(document.do, "/do")


def _blocks(items: Sequence[Mapping[str, TaskBase]], path: str) -> tuple[Block, ...]:
    return tuple(_block(name, task, f"{path}/{index}{pointer(name)}") for index, item in enumerate(items) for name, task in item.items())


def _block(name: str, task: TaskBase, path: str) -> Block:
    nature, says = _nature(task), _words(task)
    block = Block(path, name, nature, says, then=task.then or "continue")
    match task:
        case DoTask(do=items):
            parts = (("", _blocks(items, f"{path}/do")),)
        case ForTask(do=items):
            parts = (("each", _blocks(items, f"{path}/do")),)
        case ForkTask(fork=fork):
            branches = _blocks(fork.branches, f"{path}/fork/branches")
            return Block(path, name, nature, says, tuple((each.name, (each,)) for each in branches), then=block.then, parallel=True)
        case TryTask(try_=items, catch=catch):
            handler = _blocks(catch.do, f"{path}/catch/do")
            parts = (("try", _blocks(items, f"{path}/try")), *((("catch", handler),) if handler else ()))
        case ListenTask(foreach=each) if each is not None and each.do:
            parts = (("each", _blocks(each.do, f"{path}/foreach/do")),)
        case SwitchTask(switch=cases):
            ways = tuple((case.when or "otherwise", case.then) for item in cases for case in item.values())
            return Block(path, name, nature, says, cases=ways, then=block.then)
        case _:
            return block
    return Block(path, name, nature, says, parts, then=block.then)


def _nature(task: TaskBase) -> Nature:
    if task.metadata.gateway.kind == "ai":
        return Nature.AI
    match task:
        case CallFunction(call=name) if name in PEOPLE:
            return Nature.PEOPLE
        case CallA2a() | CallFunction(call="gateway.plan" | "gateway.agent"):
            return Nature.AI
        case ListenTask() | WaitTask() | CallFunction(call="gateway.signal"):
            return Nature.WAIT
        case DoTask() | ForTask() | ForkTask() | TryTask() | SwitchTask():
            return Nature.FLOW
    return Nature.FIXED


def _last(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _words(task: TaskBase) -> str:
    """What a task does, in a few words."""
    describe = _WORDS.get(type(task))
    words = [describe(task)] if describe else []
    if (claim := task.metadata.gateway.claim) is not None:
        words.append("claims a subject" if claim.effect == "*" else f"claims {claim.effect}")
    return ", ".join(words)


def _call_of_tool(task: CallMcp) -> str:
    call = task.with_
    named = call.parameters.get("name", "") if isinstance(call.parameters, dict) else ""
    return f"tool {named}" if named else call.method


def _call_of_http(task: CallHttp) -> str:
    call = task.with_
    return f"{call.method.upper()} {call.endpoint if isinstance(call.endpoint, str) else call.endpoint.uri}"


def _call_of_function(task: CallFunction) -> str:
    target = next((str(task.with_[each]) for each in ("agent", "skill", "tool", "name") if isinstance(task.with_.get(each), str)), "")
    if isinstance(several := task.with_.get("agents"), list):
        target = " or ".join(str(each) for each in several)
    return f"{task.call.removeprefix('gateway.')} {target}".strip()


def _listening(task: ListenTask) -> str:
    mode = next(name for name in ("one", "all", "any") if getattr(task.listen.to, name) is not None)
    return f"wait for {mode} event" + ("" if mode == "one" else "s")


_WORDS: Final[Mapping[type, Callable[[Any], str]]] = {
    CallA2a: lambda task: f"agent {_last(task.with_.uri)}",
    CallFunction: _call_of_function,
    CallHttp: _call_of_http,
    CallMcp: _call_of_tool,
    CallOpenApi: lambda task: f"tool {task.with_.operation_id}",
    EmitTask: lambda task: f"emit {task.emit.event.with_.type or ''}".strip(),
    ForTask: lambda task: f"for each {task.for_.each}",
    ForkTask: lambda task: "first of" if task.fork.compete else "at once",
    ListenTask: _listening,
    RaiseTask: lambda task: "raise an error",
    RunTask: lambda task: f"run {task.run.workflow.name}" if task.run.workflow else "run",
    SetTask: lambda task: "set",
    SwitchTask: lambda task: "switch",
    TryTask: lambda task: "try",
    WaitTask: lambda task: f"wait {task.wait.total / 1000:g} s" if isinstance(task.wait, Units) else f"wait {task.wait}",
}
