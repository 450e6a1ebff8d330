"""Cost entries: one for each turn of an agent, or call of a tool, whose cost the gateway knows or whose run shows it as unknown."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from adapters.contract import (
    INVALID,
    USAGE_KEY,
    AnswerRefused,
    Canceled,
    Event,
    Failed,
    RefLearned,
    RejectedArtifact,
    Replied,
    Suspended,
    is_token_count,
)
from gateway.storage.batch import Batch
from gateway.storage.tables import costs
from policies.delegation.rulings import Grant
from registry.cards.card import Family, Registration

USAGE_FIGURES: Final = ("input_tokens", "output_tokens", "total_tokens", "cache_read_tokens")
EXPIRED: Final = "expired"


class Quarantine(StrEnum):
    """Why what a call reports is not charged, but its price or its reservation."""

    BAD_FIGURES = "bad-figures"  # negative, fractional, endless or no numbers
    TOO_MANY = "too-many-tokens"  # more than costs.tokens_max
    MISSING = "missing-usage"  # the agent answered, and reported nothing
    UNPRICED = "unpriced-usage"  # the report names no known model, or no tokens by kind
    NO_ANSWER = "no-answer"  # the call was canceled or broke off, and may have cost something
    EXPIRED = EXPIRED  # nobody told how the call ended


class CostEntry(Struct, frozen=True):
    """What one turn or call cost. `amount` is in millionths of the currency, None where it is unknown; tokens are None if unreported.

    `charged` is what daily budgets were charged, which is the reservation where the amount is unknown. `quarantined` says why a report
    is not believed, and is empty for any other call.

    `owner` is the person, `actor` the calling agent or empty, `workflow` the outermost workflow in the chain or empty. `run_id` is the
    outermost run that caused the call, and `step` the JSON pointer of the step of that run; both are empty for other calls.
    """

    tenant: str
    owner: str
    actor: str
    target: str
    tool: str
    workflow: str
    txn: str
    amount: int | None
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    quarantined: str = ""
    charged: int = 0
    run_id: str = ""
    step: str = ""

    def write(self, batch: Batch, place: tuple[str, int], task_id: str, at: int) -> None:
        """Adds the row. `place` is its key: a task and the number of the turn's last event, or a decision and 0."""
        figures = {name: getattr(self, name) for name in self.__struct_fields__}
        batch.add(costs, {**figures, "id": place[0], "seq": place[1], "task_id": task_id, "at": at})


def entry_of(grant: Grant, target: Registration, workflow: str, amount: int | None, usage: Mapping[str, Any] | None = None) -> CostEntry:
    """The entry of a call."""
    held, callers, said = grant.delegation, calling_agents(grant, target), usage or {}
    return CostEntry(
        held.principal.tenant,
        held.principal.owner_key,
        callers[-1] if callers else "",
        target.name,
        tool_of(grant, target),
        workflow,
        held.txn,
        amount,
        str(said.get("model", "")),
        said.get("input_tokens"),
        said.get("output_tokens"),
    )


def calling_agents(grant: Grant, target: Registration) -> tuple[str, ...]:
    """The agents of the chain before the target, the first one first."""
    path = tuple(hop.agent for hop in grant.delegation.path)
    return path[:-1] if target.family is Family.AGENT else path


def tool_of(grant: Grant, target: Registration) -> str:
    """The tool that a call of a server calls; empty for an agent."""
    act = grant.decision.act
    return act.resource.removeprefix(f"{act.parent}.") if target.family is Family.SERVER and act.action == "callTool" else ""


def usage_of(ending: Event) -> dict[str, Any] | None:
    """The usage in the ending of a turn, as `usage_from` returns it; None where the agent reported none."""
    if isinstance(ending, Replied):
        metadata: Any = ending.message.metadata
    elif isinstance(ending, AnswerRefused | RefLearned | RejectedArtifact):
        return None
    else:
        metadata = ending.metadata
    reported = metadata.get(USAGE_KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(reported, Mapping):
        return None
    return usage_from(reported)


def usage_from(reported: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures and the model of a report under the names of USAGE_KEY, and as INVALID the names of figures that can't be right."""
    given = {name: reported[name] for name in USAGE_FIGURES if reported.get(name) is not None}
    figures = {name: value for name, value in given.items() if is_token_count(value)}
    told = reported.get(INVALID)
    invalid = sorted(given.keys() - figures.keys() | {name for name in USAGE_FIGURES if isinstance(told, list) and name in told})
    if not (figures or invalid):
        return None
    model = reported.get("model")
    return figures | ({INVALID: invalid} if invalid else {}) | ({"model": model} if isinstance(model, str) and model else {})


def quarantine_of(usage: Mapping[str, Any] | None, tokens_max: int) -> Quarantine | None:
    """Why a report can't be right; None where it can be, or where there is none."""
    if usage is None:
        return None
    if usage.get(INVALID):
        return Quarantine.BAD_FIGURES
    return Quarantine.TOO_MANY if max(usage.get(name, 0) for name in USAGE_FIGURES) > tokens_max else None


def was_answered(ending: Event) -> bool:
    """Whether the agent itself ended the turn, with whatever outcome, so that its price per call is due."""
    if isinstance(ending, Failed | AnswerRefused):
        return not ending.kind
    return not isinstance(ending, Canceled | Suspended)
