"""A document as nested blocks, which every picture is made of."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

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
    Units,
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


PEOPLE = ("gateway.approve", "gateway.choose", "gateway.form")


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
        case ListenTask() | WaitTask():
            return Nature.WAIT
        case DoTask() | ForTask() | ForkTask() | TryTask() | SwitchTask():
            return Nature.FLOW
    return Nature.FIXED


def _words(task: TaskBase) -> str:
    """What a task does, in a few words."""
    match task:
        case CallA2a(with_=call):
            return f"agent {_last(call.uri)}"
        case CallMcp(with_=call):
            named = call.parameters.get("name", "") if isinstance(call.parameters, dict) else ""
            return f"tool {named}" if named else call.method
        case CallOpenApi(with_=call):
            return f"tool {call.operation_id}"
        case CallHttp(with_=call):
            return f"{call.method.upper()} {call.endpoint if isinstance(call.endpoint, str) else call.endpoint.uri}"
        case CallFunction(call=name, with_=arguments):
            target = next((str(arguments[each]) for each in ("agent", "skill", "tool") if isinstance(arguments.get(each), str)), "")
            return f"{name.removeprefix('gateway.')} {target}".strip()
        case SetTask():
            return "set"
        case EmitTask(emit=emit):
            return f"emit {emit.event.with_.type or ''}".strip()
        case ListenTask(listen=listen):
            mode = next(name for name in ("one", "all", "any") if getattr(listen.to, name) is not None)
            return f"wait for {mode} event" + ("" if mode == "one" else "s")
        case WaitTask(wait=wait):
            return f"wait {wait.total / 1000:g} s" if isinstance(wait, Units) else f"wait {wait}"
        case RaiseTask():
            return "raise an error"
        case RunTask(run=run):
            return f"run {run.workflow.name}" if run.workflow else "run"
        case ForTask(for_=loop):
            return f"for each {loop.each}"
        case ForkTask(fork=fork):
            return "first of" if fork.compete else "at once"
        case TryTask():
            return "try"
        case SwitchTask():
            return "switch"
    return ""


def _last(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]
