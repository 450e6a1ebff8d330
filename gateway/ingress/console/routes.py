"""The addresses of the console, and its navigation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.ingress.console.forms import FORM_MAX
from gateway.ingress.console.page import Handler
from gateway.ingress.console.pages import (
    account,
    attempts,
    decisions,
    drafts,
    events,
    inbox,
    memory,
    overview,
    records,
    registration,
    registry,
    tasks,
    workflows,
)

NAVIGATION: Final[Sequence[tuple[str, Sequence[tuple[str, str]]]]] = (
    ("", (("/console", "Overview"), ("/console/tasks", "Tasks"), ("/console/runs", "Runs"), ("/console/inbox", "Approvals"))),
    ("Registered", (("/console/agents", "Agents"), ("/console/servers", "Servers"), ("/console/workflows", "Workflows"))),
    ("Rights", (("/console/why", "Why"), ("/console/evaluate", "Evaluate"), ("/console/audit", "Audit"))),
    ("Shared", (("/console/subjects", "Subjects"), ("/console/memory", "Memory"))),
    ("Events", (("/console/events", "Events"), ("/console/triggers", "Triggers"), ("/console/deadletters", "Dead letters"))),
    ("Gateway", (("/console/cost", "Cost"), ("/console/settings", "Settings"), ("/console/account", "Account"))),
)  # sections with their links
READERS_ONLY: Final = (
    "/console/deadletters",
    "/console/audit",
    "/console/settings",
)  # for readers of the audit
NAME_MAX = 300  # characters of a variable segment


@dataclass(frozen=True, slots=True)
class PageRoute:
    """What answers a request, and the place in the navigation. `names` are the variable segments of the path."""

    handler: Handler
    nav: str
    names: tuple[str, ...] = ()
    form_max: int = FORM_MAX


LARGE_FORMS: Final = {  # bytes, as they are encoded
    **dict.fromkeys(("/console/agents/{}/try", "/console/servers/{}/try", "/console/evaluate", "/console/replay"), 512 << 10),
    **dict.fromkeys(("/console/register/agent", "/console/register/server"), 2 << 20),
}
_PAGES: Final[Sequence[tuple[str, str, Handler, str]]] = (
    ("GET", "/console", overview.show_overview, "/console"),
    ("GET", "/console/health", overview.show_health, "/console"),
    ("GET", "/console/tasks", tasks.list_tasks, "/console/tasks"),
    ("GET", "/console/tasks/{}", tasks.show_task, "/console/tasks"),
    ("POST", "/console/tasks/{}/cancel", tasks.cancel_task, "/console/tasks"),
    ("GET", "/console/inbox", inbox.show_inbox, "/console/inbox"),
    ("GET", "/console/approvals/{}", inbox.show_approval, "/console/inbox"),
    ("POST", "/console/approvals/{}", inbox.decide_approval, "/console/inbox"),
    ("GET", "/console/checkpoints/{}", inbox.show_checkpoint, "/console/inbox"),
    ("POST", "/console/checkpoints/{}", inbox.answer_checkpoint, "/console/inbox"),
    ("GET", "/console/why", decisions.ask_why, "/console/why"),
    ("POST", "/console/why", decisions.find_why, "/console/why"),
    ("GET", "/console/why/{}", decisions.show_why, "/console/why"),
    ("GET", "/console/evaluate", drafts.show_evaluation, "/console/evaluate"),
    ("POST", "/console/evaluate", drafts.evaluate_draft, "/console/evaluate"),
    ("GET", "/console/replay", drafts.show_replay, "/console/evaluate"),
    ("POST", "/console/replay", drafts.replay_draft, "/console/evaluate"),
    ("GET", "/console/agents", registry.list_agents, "/console/agents"),
    ("GET", "/console/agents/{}", registry.show_agent, "/console/agents"),
    ("POST", "/console/agents/{}", registry.act_on_agent, "/console/agents"),
    ("GET", "/console/agents/{}/history/{}", registry.show_agent_version, "/console/agents"),
    ("GET", "/console/agents/{}/try", attempts.show_agent_form, "/console/agents"),
    ("POST", "/console/agents/{}/try", attempts.send_to_agent, "/console/agents"),
    ("GET", "/console/register/agent", registration.show_agent_form, "/console/agents"),
    ("POST", "/console/register/agent", registration.register_agent, "/console/agents"),
    ("GET", "/console/register/server", registration.show_server_form, "/console/servers"),
    ("POST", "/console/register/server", registration.register_server, "/console/servers"),
    ("GET", "/console/servers", registry.list_servers, "/console/servers"),
    ("GET", "/console/servers/{}", registry.show_server, "/console/servers"),
    ("POST", "/console/servers/{}", registry.act_on_server, "/console/servers"),
    ("GET", "/console/servers/{}/history/{}", registry.show_server_version, "/console/servers"),
    ("GET", "/console/servers/{}/try", attempts.show_tool_form, "/console/servers"),
    ("POST", "/console/servers/{}/try", attempts.send_to_tool, "/console/servers"),
    ("GET", "/console/workflows", workflows.list_workflows, "/console/workflows"),
    ("GET", "/console/workflows/{}", workflows.show_workflow, "/console/workflows"),
    ("POST", "/console/workflows/{}/runs", workflows.start_run, "/console/workflows"),
    ("GET", "/console/runs", workflows.list_runs, "/console/runs"),
    ("GET", "/console/runs/{}", workflows.show_run, "/console/runs"),
    ("POST", "/console/runs/{}", workflows.act_on_run, "/console/runs"),
    ("GET", "/console/subjects", records.list_subjects, "/console/subjects"),
    ("POST", "/console/subjects", records.find_subject, "/console/subjects"),
    ("GET", "/console/subjects/{}", records.show_subject, "/console/subjects"),
    ("GET", "/console/audit", records.show_audit, "/console/audit"),
    ("GET", "/console/audit/verification", records.show_verification, "/console/audit"),
    ("GET", "/console/cost", records.show_costs, "/console/cost"),
    ("GET", "/console/memory", memory.list_facts, "/console/memory"),
    ("POST", "/console/memory", memory.act_on_memory, "/console/memory"),
    ("GET", "/console/memory/{}", memory.show_fact, "/console/memory"),
    ("POST", "/console/memory/{}", memory.act_on_fact, "/console/memory"),
    ("GET", "/console/events", events.list_events, "/console/events"),
    ("GET", "/console/triggers", events.list_triggers, "/console/triggers"),
    ("POST", "/console/triggers", events.test_triggers, "/console/triggers"),
    ("POST", "/console/triggers/{}", events.act_on_trigger, "/console/triggers"),
    ("GET", "/console/deadletters", events.list_dead_letters, "/console/deadletters"),
    ("POST", "/console/deadletters/{}", events.act_on_dead_letter, "/console/deadletters"),
    ("GET", "/console/account", account.show_account, "/console/account"),
    ("POST", "/console/account", account.act_on_account, "/console/account"),
    ("GET", "/console/settings", account.show_settings, "/console/settings"),
)
PATHS: Final = tuple((method, path) for method, path, _, _ in _PAGES)


def find_route(method: str, path: str) -> PageRoute | None:
    """Returns the route of a request, or None."""
    segments = path.rstrip("/").split("/")
    for known, template, handler, nav in _PAGES:
        if known == method and (names := _match(template.split("/"), segments)) is not None:
            return PageRoute(handler, nav, names, LARGE_FORMS.get(template, FORM_MAX))
    return None


def _match(template: Sequence[str], segments: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the variable segments, which `{}` stands for in the template; None where the path is another one."""
    if len(template) != len(segments):
        return None
    names = []
    for wanted, found in zip(template, segments, strict=True):
        if wanted == "{}":
            if not 0 < len(found) <= NAME_MAX:
                return None
            names.append(found)
        elif wanted != found:
            return None
    return tuple(names)
