"""An agent that plans by a script: each message gets the next plan."""

from typing import Any

from tests.fakes.house import CallbackAgent


class ScriptedPlanner(CallbackAgent):
    """`plans` are its answers, in order; the last one for ever. A text is answered as a text."""

    def __init__(self, name: str, *plans: Any) -> None:
        super().__init__(name, self._plan)
        self.plans = list(plans)

    async def _plan(self, _token: str, _text: str) -> str:
        plan = self.plans[min(len(self.requests), len(self.plans)) - 1]
        self.more = [] if isinstance(plan, str) else [{"data": plan}]
        return plan if isinstance(plan, str) else "a plan"

    @property
    def told(self) -> list[dict[str, Any]]:
        """What each message told it."""
        return [request["params"]["message"]["parts"][0]["data"] for request in self.requests]


def call_agent(agent: str, given: Any) -> dict[str, Any]:
    return {"call": "gateway.agent", "with": {"agent": agent, "input": given}}


def call_tool(tool: str, arguments: Any = None) -> dict[str, Any]:
    return {"call": "gateway.tool", "with": {"tool": tool, "arguments": arguments or {}}}


def plan_of(**steps: Any) -> dict[str, Any]:
    """A plan of these steps, one after the other."""
    return {"do": [{name: step} for name, step in steps.items()]}
