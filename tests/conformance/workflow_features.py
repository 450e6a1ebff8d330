"""Features of the workflow language in Gherkin: the phrases of the specification's kit and of this repository's own features.

Each scenario describes a workflow and what must come of its run, which is rehearsed in virtual time.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from gherkin.parser import Parser

from gateway.workflows.dsl.checks import check_document
from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.errors import matches
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.rehearsal.effects import Observed, ScriptedEffects
from gateway.workflows.rehearsal.rehearse import BusyEvaluator, Outcome, rehearse_case
from gateway.workflows.rehearsal.script import RehearsalCase

QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a scenario, with the text below it."""

    text: str
    block: str


@dataclass(frozen=True, slots=True)
class FeatureScenario:
    feature: str
    name: str
    steps: tuple[Step, ...]


class UnknownPhrase(Exception):
    """No step of this runner has this text."""


class NotAsExpected(AssertionError):
    """The run is not what the scenario says."""


@dataclass(slots=True)
class _World:
    """What a scenario has said so far, and its run."""

    make_effects: type[ScriptedEffects]
    definition: str = ""
    case: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    observed: Observed = field(default_factory=Observed)
    refused: DocumentRefused | None = None

    @property
    def is_over(self) -> bool:
        """Whether the workflow was executed: what follows checks it."""
        return self.outcome is not None or self.refused is not None

    @property
    def ran(self) -> Outcome:
        if self.outcome is None:
            raise NotAsExpected(f"the document is refused: {self.refused}")
        return self.outcome

    @property
    def names(self) -> list[str]:
        """Names of the tasks, in the order in which they began."""
        return [step.rpartition("/")[2] for step in self.observed.steps]


def read_feature(text: str) -> list[FeatureScenario]:
    """The scenarios of a feature file."""
    feature = Parser().parse(text)["feature"]
    found = []
    for child in feature["children"]:
        steps = tuple(Step(each["text"], each.get("docString", {}).get("content", "")) for each in child["scenario"]["steps"])
        found.append(FeatureScenario(feature["name"], child["scenario"]["name"], steps))
    return found


async def run_scenario(scenario: FeatureScenario, make_effects: type[ScriptedEffects] = ScriptedEffects) -> int:
    """Runs a scenario and returns how many things it checked. Raises NotAsExpected and UnknownPhrase."""
    world, checked = _World(make_effects), 0
    for step in scenario.steps:
        checked += world.is_over
        await _perform(world, step)
    return checked


async def _perform(world: _World, step: Step) -> None:
    for phrase, act in PHRASES:
        if (found := phrase.fullmatch(step.text)) is not None:
            await act(world, step.block, *found.groups())
            return
    raise UnknownPhrase(step.text)


Act = Callable[..., Awaitable[None]]
PHRASES: list[tuple[re.Pattern[str], Act]] = []


def phrase(text: str) -> Callable[[Act], Act]:
    """Has a function perform every step whose text matches."""

    def add(act: Act) -> Act:
        PHRASES.append((re.compile(text), act))
        return act

    return add


def check(holds: bool, words: str) -> None:
    if not holds:
        raise NotAsExpected(words)


@phrase("a workflow with definition:")
async def define(world: _World, block: str) -> None:
    world.definition = block


@phrase("given the workflow input is:")
async def give_input(world: _World, block: str) -> None:
    world.case["input"] = yaml.safe_load(block)


@phrase("given the answers of steps are:")
async def give_answers(world: _World, block: str) -> None:
    world.case["answers"] = yaml.safe_load(block)


@phrase("given these events come:")
async def give_events(world: _World, block: str) -> None:
    world.case["events"] = yaml.safe_load(block)


@phrase("the workflow is executed")
async def execute(world: _World, block: str) -> None:
    evaluator = BusyEvaluator(seconds=20.0)  # however slow the machine
    try:
        source = read_source(world.definition)
        document = read_document(source)
        if world.make_effects is ScriptedEffects:  # the kit's documents name addresses outside of a registry
            await check_document(document, source, evaluator)
        case = RehearsalCase.model_validate({"name": "scenario", **world.case})
        world.outcome, world.observed = await rehearse_case(document, case, evaluator, world.make_effects)
    except DocumentRefused as refused:
        world.refused = refused
    finally:
        await evaluator.close()


@phrase("the workflow should complete")
async def completes(world: _World, block: str) -> None:
    fault = world.ran.fault
    check(world.ran.status == "completed", f"it is {world.ran.status}: {fault or world.ran.problems}")


@phrase("the workflow should complete with output:")
async def completes_with(world: _World, block: str) -> None:
    await completes(world, block)
    check(world.ran.output == yaml.safe_load(block), f"the output is {world.ran.output!r}")


@phrase("the workflow should fault")
async def faults(world: _World, block: str) -> None:
    check(world.ran.status == "faulted", f"it is {world.ran.status}: {world.ran.output!r}")


@phrase("the workflow should fault with error:")
async def faults_with(world: _World, block: str) -> None:
    await faults(world, block)
    assert world.ran.fault is not None
    check(matches(world.ran.fault, yaml.safe_load(block)), f"the error is {world.ran.fault}")


@phrase("the workflow should wait")
async def waits(world: _World, block: str) -> None:
    check(world.ran.status == "waiting", f"it is {world.ran.status}: {world.ran.problems}")


@phrase("the document should be refused at '([^']*)'")
async def is_refused(world: _World, block: str, path: str) -> None:
    check(world.refused is not None, "the document is not refused")
    assert world.refused is not None
    check([each.path for each in world.refused.problems] == [path], f"it is refused: {world.refused}")


@phrase("the workflow output should have properties (.*)")
async def has_properties(world: _World, block: str, names: str) -> None:
    for name in QUOTED.findall(names):
        _property(world.ran.output, name)


@phrase("the workflow output should have a '([^']*)' property with value:")
async def has_value(world: _World, block: str, name: str) -> None:
    found = _property(world.ran.output, name)
    check(found == yaml.safe_load(block), f"{name} is {found!r}")


@phrase("the workflow output should have a '([^']*)' property containing ([0-9]+) items")
async def has_items(world: _World, block: str, name: str, count: str) -> None:
    found = _property(world.ran.output, name)
    check(isinstance(found, list) and len(found) == int(count), f"{name} is {found!r}")


@phrase(r"(\S+) should run first")
async def runs_first(world: _World, block: str, name: str) -> None:
    check(world.names[:1] == [name], f"the tasks ran as {world.names}")


@phrase(r"(\S+) should run last")
async def runs_last(world: _World, block: str, name: str) -> None:
    check(world.names[-1:] == [name], f"the tasks ran as {world.names}")


@phrase(r"(\S+) should run after (\S+)")
async def runs_after(world: _World, block: str, name: str, earlier: str) -> None:
    names = world.names
    check({name, earlier} <= set(names) and names.index(earlier) < names.index(name), f"the tasks ran as {names}")


@phrase(r"(\S+) should not run")
async def does_not_run(world: _World, block: str, name: str) -> None:
    check(name not in world.names, f"the tasks ran as {world.names}")


@phrase(r"(\S+) should run ([0-9]+) times?")
async def runs_times(world: _World, block: str, name: str, count: str) -> None:
    check(world.names.count(name) == int(count), f"the tasks ran as {world.names}")


@phrase("the run should take ([0-9.]+) seconds?")
async def takes(world: _World, block: str, seconds: str) -> None:
    check(world.ran.seconds == float(seconds), f"it took {world.ran.seconds:g} seconds")


@phrase(r"(\S+) should call (\S+) with:")
async def calls(world: _World, block: str, name: str, function: str) -> None:
    made = [call for pointer, call in world.observed.calls if pointer.rpartition("/")[2] == name]
    check([call.function for call in made] == [function], f"{name} made {made}")
    check(_has(made[0].arguments, yaml.safe_load(block)), f"{name} called with {made[0].arguments!r}")


@phrase("an event should be published:")
async def publishes(world: _World, block: str) -> None:
    check(any(_has(each, yaml.safe_load(block)) for each in world.observed.events), f"the events are {world.observed.events}")


def _has(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one; of objects only the wanted members are compared."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(name in value and _has(value[name], each) for name, each in wanted.items())
    return bool(value == wanted)


def _property(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise NotAsExpected(f"the output has no {path}: {value!r}")
        value = value[name]
    return value


_: type[Evaluator] = BusyEvaluator
