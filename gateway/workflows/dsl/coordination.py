"""What a document says of steps in which an agent plans, or that several agents can do: the arguments of such steps."""

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from gateway.workflows.dsl.constructs import ENTRY_NAME, NO_EXPRESSION, TOOL_NAME, Construct
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.dsl.loading import pointer
from gateway.workflows.dsl.wording import problems_of

AGENT: Final = "gateway.agent"
PLAN: Final = "gateway.plan"
AGENTS_MAX: Final = 20  # that one step may be given to
AgentName = Annotated[str, Field(pattern=ENTRY_NAME)]
ToolName = Annotated[str, Field(pattern=TOOL_NAME)]
Cost = Annotated[Decimal, Field(ge=0, le=1_000_000_000)]


def _check_duration(text: str) -> str:
    milliseconds_of(text)
    return text


WrittenDuration = Annotated[str, AfterValidator(_check_duration)]


class Among(Construct):
    """The agents and tools (`server.tool`) that a planner may choose from, each by its name."""

    agents: list[AgentName] = Field([], max_length=100)
    tools: list[ToolName] = Field([], max_length=100)


class PlanLimits(Construct):
    """`steps`: calls and other tasks of one plan; `depth`: lists within lists; `cost`: of all plans of the step, in the unit of `costs`."""

    steps: int = Field(20, ge=1, le=200)
    depth: int = Field(3, ge=1, le=8)
    cost: Cost | None = None


class PlanArguments(Construct):
    """The arguments of `gateway.plan`. Only `goal`, `input` and `prompt` may be expressions.

    `agent` plans, `approve` has people approve of each plan, `replan` is how many further plans may follow one that failed, `costs` what
    one call of an agent or tool costs at most.
    """

    agent: AgentName
    skill: str = Field("", max_length=128, pattern=NO_EXPRESSION)
    goal: Any
    input: Any = None
    among: Among
    limits: PlanLimits = PlanLimits()
    costs: dict[str, Cost] = Field({}, max_length=200)
    approve: bool = Field(False, strict=True)
    prompt: str = Field("Run this plan?", min_length=1, max_length=4000)
    expires: WrittenDuration = "P7D"
    replan: int = Field(0, ge=0, le=10)

    def model_post_init(self, context: Any) -> None:
        named = {*self.among.agents, *self.among.tools}
        if not named:
            raise ValueError("`among` names no agent and no tool")
        if self.limits.cost is not None and (unknown := sorted(named - set(self.costs))):
            raise ValueError(f"`limits.cost` needs `costs` of everything in `among`; it lacks {', '.join(unknown)}")


def plan_argument_problems(arguments: Any) -> list[tuple[str, str]]:
    """What is wrong with the arguments of `gateway.plan`: the place within them, as a JSON pointer, and the reason."""
    try:
        PlanArguments.model_validate(arguments)
    except ValidationError as error:
        found = problems_of(PlanArguments, arguments, error.errors(include_url=False, include_input=False))
        return [(pointer(*steps), reason) for steps, reason in found]
    return []


def agent_argument_problems(arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the arguments of `gateway.agent` where they name several agents."""
    if "agents" not in arguments:
        return []
    if "agent" in arguments:
        return [("/agents", "stands beside `agent`; a step names one of them")]
    agents, found = arguments["agents"], []
    try:
        if not 0 < len(_AGENTS.validate_python(agents)) <= AGENTS_MAX or len(set(agents)) < len(agents):
            found.append(("/agents", f"is no list of 1 to {AGENTS_MAX} different agents"))
    except ValidationError:
        found.append(("/agents", "is no list of names of agents by plain texts"))
    skill = arguments.get("skill", "")
    if not isinstance(skill, str) or "${" in skill:
        found.append(("/skill", "is no plain text, and decides which of the agents can do the step"))
    return found


_AGENTS: Final = TypeAdapter(list[AgentName])
