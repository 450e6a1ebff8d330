"""Builds the MCP server and registers its periodic tasks and its shutdown."""

import time
from collections.abc import Callable

from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.mcp_server.agent_tool_calls import AgentToolCalls
from gateway.ingress.mcp_server.catalogue.hidden import Catalogue
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
from gateway.ingress.mcp_server.upstream_requests import CallTargets, UpstreamRequests
from gateway.server.composition.process import SWEEP_SECONDS, Gateway
from gateway.server.composition.upstreams import upstream_headers
from gateway.tasks.pages import TaskCounts, TaskPages
from policies.ids import now_us
from registry.cards.card import Registration


def build_endpoint(gateway: Gateway, authentication: RequestAuthentication) -> McpEndpoint:
    """Builds the MCP endpoint and registers its periodic tasks and its shutdown with the gateway."""
    catalogue, state_cipher = _build_catalogue(gateway), RequestStateCipher(gateway.keys, time.time)
    mailbox, streams = gateway.mailbox, Streams(gateway.database, now_us)
    sessions, changes = McpSessions(gateway.database, now_us), ChangeBroadcast()
    relister, upstream_watcher = _build_relister(gateway)
    task_store, log = ServerTaskStore(gateway.database, now_us), gateway.stores.tasks
    timeouts, is_alive = gateway.timeouts, gateway.processes.is_alive
    legacy_tasks = LegacyServerTasks(
        gateway.calls.servers, task_store, mailbox, gateway.process, is_alive, first_question_seconds=timeouts.first_question
    )
    relayed = RelayedTasks(gateway.calls.servers, catalogue.visible_entries, task_store, legacy_tasks)
    agent_tasks = AgentTasks(gateway.calls.agents, log, AnswerStore(gateway.database), state_cipher)
    tasks = TaskMethods(
        catalogue.visible_entries, TaskSources(log, TaskPages(gateway.database, TaskCounts(log.pruning, now_us)), agent_tasks, relayed)
    )
    upstream_requests = UpstreamRequests(
        gateway.calls.servers,
        catalogue,
        CallTargets(AgentToolCalls(gateway.calls.agents, agent_tasks), relayed),
        state_cipher,
        relister.relist_now,
    )
    pending_calls = PendingCalls(state_cipher, mailbox, gateway.process, is_alive)
    feed, task_feed = NotificationFeed(gateway.calls.servers, catalogue, changes, upstream_watcher), TaskFeed(tasks, log)
    legacy_context = LegacyContext(mailbox, streams, QuestionIds(gateway.keys), time.time, timeouts.legacy_stream)
    this_process = ThisProcess(gateway.process, is_alive)
    listeners = NotificationStreams(
        authentication, feed, task_feed, sessions, legacy_context, open_streams=gateway.open_streams, this_process=this_process
    )
    methods = MethodTable(upstream_requests, tasks, catalogue, sessions, listeners, empty_lists=gateway.empty_lists)
    parts = DispatchParts(upstream_requests, methods, state_cipher, pending_calls, listeners, legacy_context)

    for name in ("registry", "grants", "kills", "policies"):
        gateway.database.watch(name, changes)
    gateway.database.watch("registry", upstream_watcher.update_streams)
    if mailbox.is_shared:
        gateway.database.watch("sessions", listeners.wake_get_streams)

    async def start_sweeps() -> None:
        gateway.periodic_tasks.repeat(SWEEP_SECONDS, state_cipher.sweep)
        for sweep in (sessions.sweep, streams.sweep, mailbox.sweep, task_store.sweep):
            gateway.periodic_tasks.repeat_elected(SWEEP_SECONDS, sweep)

    gateway.lifecycle.on_start(start_sweeps)
    gateway.lifecycle.on_drain(lambda _: listeners.close())
    for part in (listeners, pending_calls, agent_tasks, legacy_tasks, upstream_watcher, relister):
        gateway.lifecycle.on_stop(part.close)
    dispatcher = EraDispatcher(sessions, parts, changes, gateway.tools)
    gateway.calls.stopper.on_kills_changed(dispatcher.close_killed)
    http_sse, size = HttpSse(dispatcher, streams, mailbox.is_shared), gateway.settings.server.max_body
    return McpEndpoint(authentication, upstream_requests, dispatcher, http_sse, size, visible_entries=catalogue.visible_entries)


def _build_relister(gateway: Gateway) -> tuple[Relister, UpstreamWatcher]:
    """Builds the relister, which lists a server again when any session reports a change, and the watcher of servers."""
    relister = Relister(gateway.entry_refresher.refresh_changed_server)
    gateway.server_list_changes.subscribe(relister.relist_soon)

    async def listen(target: Registration, changed: Callable[[], None]) -> None:
        await gateway.tools.watch(target, upstream_headers(target.upstream), changed)

    return relister, UpstreamWatcher(gateway.registry, listen, relister)


def _build_catalogue(gateway: Gateway) -> Catalogue:
    visible_entries = VisibleEntries(gateway.registry, gateway.rulings.authority, gateway.entry_refresher.absences)
    separator = "." if gateway.settings.server.tool_names == "dot" else "_"
    tools = ToolCatalogue(visible_entries, separator)
    return Catalogue(
        visible_entries,
        tools,
        PromptCatalogue(visible_entries, separator),
        ResourceCatalogue(visible_entries),
        SearchMode(visible_entries, tools),
    )
