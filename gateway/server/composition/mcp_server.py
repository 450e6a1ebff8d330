"""Builds the MCP server and registers its periodic tasks and its shutdown."""

import time
from collections.abc import Callable

from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.mcp_server.agent_tool_calls import AgentToolCalls
from gateway.ingress.mcp_server.catalogue.prompts import PromptCatalogue
from gateway.ingress.mcp_server.catalogue.resources import ResourceCatalogue
from gateway.ingress.mcp_server.catalogue.search_mode import SearchMode
from gateway.ingress.mcp_server.catalogue.tools import ToolCatalogue
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries
from gateway.ingress.mcp_server.elicitation.pending_calls import PendingCalls
from gateway.ingress.mcp_server.endpoint import McpEndpoint
from gateway.ingress.mcp_server.era_dispatch import DispatchParts, EraDispatcher
from gateway.ingress.mcp_server.http_sse import HttpSse
from gateway.ingress.mcp_server.legacy.exchange import LegacyContext
from gateway.ingress.mcp_server.legacy.question_ids import QuestionIds
from gateway.ingress.mcp_server.legacy.streams import Streams
from gateway.ingress.mcp_server.methods import MethodTable
from gateway.ingress.mcp_server.protocol.request_state import RequestStateCipher
from gateway.ingress.mcp_server.protocol.sessions import McpSessions
from gateway.ingress.mcp_server.subscriptions.notifications import ChangeBroadcast, NotificationFeed
from gateway.ingress.mcp_server.subscriptions.relist import Relister
from gateway.ingress.mcp_server.subscriptions.streams import NotificationStreams, ThisProcess
from gateway.ingress.mcp_server.subscriptions.upstream_watch import UpstreamWatcher
from gateway.ingress.mcp_server.tasks.agent_tasks import AgentTasks
from gateway.ingress.mcp_server.tasks.feed import TaskFeed
from gateway.ingress.mcp_server.tasks.legacy_server_tasks import LegacyServerTasks
from gateway.ingress.mcp_server.tasks.methods import TaskMethods, TaskSources
from gateway.ingress.mcp_server.tasks.server_tasks import RelayedTasks
from gateway.ingress.mcp_server.tasks.store import AnswerStore, ServerTaskStore
from gateway.ingress.mcp_server.upstream_requests import CallTargets, Catalogue, UpstreamRequests
from gateway.server.composition.process import SWEEP_SECONDS, Gateway
from gateway.server.settings import upstream_headers
from gateway.tasks.pages import TaskPages
from policies.ids import now_us
from registry.cards.card import Registration


def build_endpoint(gateway: Gateway, admission: RequestAuthentication) -> McpEndpoint:
    """Builds the MCP endpoint and registers its periodic tasks and its shutdown with the gateway."""
    catalogue, seal = _build_catalogue(gateway), RequestStateCipher(gateway.keys, time.time)
    mailbox, streams = gateway.mailbox, Streams(gateway.database, now_us)
    sessions, changes = McpSessions(gateway.database, now_us), ChangeBroadcast()
    relisting, watching = _build_relister(gateway)
    task_store, log = ServerTaskStore(gateway.database, now_us), gateway.stores.tasks
    older = LegacyServerTasks(gateway.calls.servers, task_store, mailbox, gateway.process, gateway.processes.is_alive)
    relayed = RelayedTasks(gateway.calls.servers, catalogue.visible_entries, task_store, older)
    running = AgentTasks(gateway.calls.agents, log, AnswerStore(gateway.database), seal)
    tasks = TaskMethods(catalogue.visible_entries, TaskSources(log, TaskPages(gateway.database), running, relayed))
    relay = UpstreamRequests(
        gateway.calls.servers, catalogue, CallTargets(AgentToolCalls(gateway.calls.agents, running), relayed), seal, relisting.relist_now
    )
    parked = PendingCalls(seal, mailbox, gateway.process, gateway.processes.is_alive)
    feeds = NotificationFeed(gateway.calls.servers, catalogue, changes, watching), TaskFeed(tasks, log)
    line = LegacyContext(mailbox, streams, QuestionIds(gateway.keys), time.time)
    here = ThisProcess(gateway.process, gateway.processes.is_alive)
    listeners = NotificationStreams(admission, feeds, sessions, line, gateway.open_streams, this_process=here)
    methods = MethodTable(relay, tasks, catalogue, sessions, listeners, empty_lists=gateway.empty_lists)
    parts = DispatchParts(relay, methods, seal, parked, listeners, line)

    for name in ("registry", "grants", "kills", "policies"):
        gateway.database.watch(name, changes)
    gateway.database.watch("registry", watching.update_streams)
    if mailbox.is_shared:
        gateway.database.watch("sessions", listeners.wake_get_streams)

    async def start_sweeps() -> None:
        for sweep in (sessions.sweep, streams.sweep, mailbox.sweep, seal.sweep, task_store.sweep):
            gateway.periodic_tasks.repeat(SWEEP_SECONDS, sweep)

    gateway.on_start.append(start_sweeps)
    gateway.drain.end_streams.append(lambda _: listeners.close())
    gateway.on_stop_before_turns.extend((listeners.close, parked.close, running.close, older.close, watching.close, relisting.close))
    conversations = EraDispatcher(sessions, parts, changes, gateway.tools)
    gateway.calls.stopper.kill_listeners.append(conversations.close_killed)
    http_sse, size = HttpSse(conversations, streams, mailbox.is_shared), gateway.settings.server.max_body
    return McpEndpoint(admission, relay, conversations, http_sse, size, visible_entries=catalogue.visible_entries)


def _build_relister(gateway: Gateway) -> tuple[Relister, UpstreamWatcher]:
    """Builds the relister, which lists a server again when any session reports a change, and the watcher of servers."""
    relisting = Relister(gateway.entry_refresher.refresh_changed_server)
    gateway.tools.set_list_changed_hook(relisting.relist_soon)

    async def listen(target: Registration, changed: Callable[[], None]) -> None:
        await gateway.tools.watch(target, upstream_headers(target.upstream), changed)

    return relisting, UpstreamWatcher(gateway.registry, listen, relisting)


def _build_catalogue(gateway: Gateway) -> Catalogue:
    offers = VisibleEntries(gateway.registry, gateway.rulings.authority, gateway.entry_refresher.absences)
    separator = "." if gateway.settings.server.tool_names == "dot" else "_"
    tools = ToolCatalogue(offers, separator)
    return Catalogue(offers, tools, PromptCatalogue(offers, separator), ResourceCatalogue(offers), SearchMode(offers, tools))
