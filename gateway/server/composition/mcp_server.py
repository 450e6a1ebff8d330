"""Makes the door of MCP, its loops and its end."""

import time
from collections.abc import Callable

from gateway.ingress.http.authentication import Admission
from gateway.ingress.mcp_server.agent_calls import Agents
from gateway.ingress.mcp_server.catalogue.prompts import Prompts
from gateway.ingress.mcp_server.catalogue.resources import Resources
from gateway.ingress.mcp_server.catalogue.search_mode import Searching
from gateway.ingress.mcp_server.catalogue.tools import Tools
from gateway.ingress.mcp_server.catalogue.visible import Offers
from gateway.ingress.mcp_server.elicitation.pending_calls import Parked
from gateway.ingress.mcp_server.endpoint import Endpoint
from gateway.ingress.mcp_server.era_dispatch import Conversations, Parts
from gateway.ingress.mcp_server.http_sse import HttpSse
from gateway.ingress.mcp_server.legacy.exchange import Line
from gateway.ingress.mcp_server.legacy.question_ids import Marks
from gateway.ingress.mcp_server.legacy.streams import Streams
from gateway.ingress.mcp_server.methods import Methods
from gateway.ingress.mcp_server.protocol.request_state import Seal
from gateway.ingress.mcp_server.protocol.sessions import Sessions
from gateway.ingress.mcp_server.subscriptions.notifications import Changes, Feed
from gateway.ingress.mcp_server.subscriptions.relist import Relisting
from gateway.ingress.mcp_server.subscriptions.streams import Here, Listeners
from gateway.ingress.mcp_server.subscriptions.upstream_watch import Watching
from gateway.ingress.mcp_server.tasks.agent_tasks import AgentTasks
from gateway.ingress.mcp_server.tasks.feed import TaskFeed
from gateway.ingress.mcp_server.tasks.legacy_server_tasks import OlderServerTasks
from gateway.ingress.mcp_server.tasks.methods import Sources, Tasks
from gateway.ingress.mcp_server.tasks.server_tasks import RelayedTasks
from gateway.ingress.mcp_server.tasks.store import Answers, ServerTasks
from gateway.ingress.mcp_server.upstream_requests import Callees, Catalogue, Relay
from gateway.server.composition.process import SWEEP_SECONDS, Gateway
from gateway.server.settings import upstream_headers
from gateway.tasks.pages import TaskPages
from policies.ids import now_us
from registry.cards.card import Registration


def endpoint(gateway: Gateway, admission: Admission) -> Endpoint:
    """The door, with its loops and its end."""
    catalogue, seal = _catalogue(gateway), Seal(gateway.keys, time.time)
    mailbox, streams = gateway.mailbox, Streams(gateway.database, now_us)
    sessions, changes = Sessions(gateway.database, now_us), Changes()
    relisting, watching = _relisting(gateway)
    kept, log = ServerTasks(gateway.database, now_us), gateway.memory.tasks
    older = OlderServerTasks(gateway.broker, kept, mailbox, gateway.process, gateway.presence.lives)
    relayed = RelayedTasks(gateway.broker, catalogue.offers, kept, older)
    running = AgentTasks(gateway.broker, log, Answers(gateway.database), seal)
    tasks = Tasks(catalogue.offers, Sources(log, TaskPages(gateway.database), running, relayed))
    relay = Relay(gateway.broker, catalogue, Callees(Agents(gateway.broker, running), relayed), seal, relisting.now)
    parked = Parked(seal, mailbox, gateway.process, gateway.presence.lives)
    feeds = Feed(gateway.broker, catalogue, changes, watching), TaskFeed(tasks, log)
    line = Line(mailbox, streams, Marks(gateway.keys), time.time)
    here = Here(gateway.process, gateway.presence.lives)
    listeners = Listeners(admission, feeds, sessions, line, gateway.places, here=here)
    methods = Methods(relay, tasks, catalogue, sessions, listeners, empty=gateway.empty_lists)
    parts = Parts(relay, methods, seal, parked, listeners, line)

    for name in ("registry", "grants", "kills", "policies"):
        gateway.database.watch(name, changes)
    gateway.database.watch("registry", watching.settle)
    if mailbox.shared:
        gateway.database.watch("sessions", listeners.look)

    async def begin() -> None:
        for sweep in (sessions.sweep, streams.sweep, mailbox.sweep, seal.sweep, kept.sweep):
            gateway.pulse.repeat(SWEEP_SECONDS, sweep)

    gateway.opening.append(begin)
    gateway.drain.end_streams.append(lambda _: listeners.close())
    gateway.closing.extend((listeners.close, parked.close, running.close, older.close, watching.close, relisting.close))
    conversations = Conversations(sessions, parts, changes, gateway.tools)
    gateway.broker.halt.also.append(conversations.expel)
    http_sse, size = HttpSse(conversations, streams, mailbox.shared), gateway.settings.server.max_body
    return Endpoint(admission, relay, conversations, http_sse, size, offers=catalogue.offers)


def _relisting(gateway: Gateway) -> tuple[Relisting, Watching]:
    """What makes lists follow those of servers, whoever hears that they changed."""
    relisting = Relisting(gateway.refresh.hinted)
    gateway.tools.hints(relisting.soon)

    async def listen(target: Registration, changed: Callable[[], None]) -> None:
        await gateway.tools.watch(target, upstream_headers(target.upstream), changed)

    return relisting, Watching(gateway.registry, listen, relisting)


def _catalogue(gateway: Gateway) -> Catalogue:
    offers = Offers(gateway.registry, gateway.authority, gateway.refresh.absences)
    separator = "." if gateway.settings.server.tool_names == "dot" else "_"
    tools = Tools(offers, separator)
    return Catalogue(offers, tools, Prompts(offers, separator), Resources(offers), Searching(offers, tools))
