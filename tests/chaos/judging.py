"""What must hold of runs after a round: each ended once, as it should, and no effect happened twice."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.effects import Effect

TERMINAL = {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"}
UNKNOWN = "urn:interlock:error:outcome-unknown"
FAILED = "urn:chaos:failed"
ONCE = ("reserve", "check", "left", "round-1", "round-2", "round-3")  # a completed run did each of them exactly once
UNDONE = ("reserve", "left")
STEPS_THAT_MAY_BE_UNKNOWN = ("/reserve", "/check", "/leftAct", "/act")  # not declared as idempotent


@dataclass(frozen=True, slots=True)
class Ending:
    """A run as the database has it after its round."""

    id: str
    fails: bool
    state: str
    statuses: tuple[str, ...]  # of its log, in their order
    fault: Mapping[str, Any] = field(default_factory=dict)
    runner: str = ""


@dataclass(slots=True)
class Verdict:
    """What was wrong with the runs of a round, in lines for people."""

    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unknown: int = 0  # runs that failed since nobody can know the outcome of a step

    @property
    def problems(self) -> list[str]:
        return [*self.lost, *self.repeated, *self.stuck, *self.wrong]


def judge(endings: Iterable[Ending], effects: Sequence[Effect]) -> Verdict:
    """`effects` are those of these runs, of the whole chaos or of more."""
    verdict = Verdict()
    keys = Counter((effect.who, effect.key) for effect in effects)
    acts = Counter(effect.said or effect.key for effect in effects)
    for ending in endings:
        verdict.repeated += [f"{key} of {who}: {count} times" for (who, key), count in keys.items() if count > 1 and ending.id in key]
        if ending.state not in TERMINAL:
            verdict.stuck.append(f"{ending.id} is {ending.state}")
            continue
        _judge_end(ending, verdict)
        _judge_effects(ending, acts, verdict)
    return verdict


def _judge_end(ending: Ending, verdict: Verdict) -> None:
    ends = [each for each in ending.statuses if each in TERMINAL]
    if ends != [ending.state] or ending.statuses[-1] != ending.state or ending.runner:
        verdict.wrong.append(f"{ending.id} is {ending.state} of {ending.runner or 'no process'}, and its log has {ends}")
    kind, instance = str(ending.fault.get("type", "")), str(ending.fault.get("instance", ""))
    if kind == UNKNOWN and instance.endswith(STEPS_THAT_MAY_BE_UNKNOWN):
        verdict.unknown += 1
    elif (ending.state, kind) != (("TASK_STATE_FAILED", FAILED) if ending.fails else ("TASK_STATE_COMPLETED", "")):
        verdict.wrong.append(f"{ending.id} is {ending.state}: {json.dumps(ending.fault)}")


def _judge_effects(ending: Ending, acts: Counter[str], verdict: Verdict) -> None:
    done = {step: acts[f"{step} {ending.id}"] for step in ONCE}
    verdict.repeated += [f"{step} of {ending.id}: {count} times" for step, count in done.items() if count > 1]
    kind = ending.fault.get("type", "")
    if kind != UNKNOWN:
        verdict.lost += [f"{step} of {ending.id} was never done" for step, count in done.items() if not count]
        if not acts[f"right {ending.id}"]:
            verdict.lost.append(f"right of {ending.id} was never done")
    for step in UNDONE:
        count = acts[f"undo {step} {ending.id}"]
        if kind == FAILED and not count:
            verdict.lost.append(f"{step} of {ending.id} was never undone")
        if ending.state == "TASK_STATE_COMPLETED" and count:
            verdict.wrong.append(f"{step} of {ending.id} was undone, and the run completed")
