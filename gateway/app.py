"""Builds the gateway: the only file that makes objects and joins them."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn

from adapters.a2a_wire.transport import Transport
from adapters.catalog import Catalog
from adapters.doorbells import Doorbells
from adapters.egress import Egress
from adapters.mcp_pool import McpPool
from adapters.mcp_tools import Commands, McpTools
from gateway import logs
from gateway.a2a_server.cards import Cards, Publishing
from gateway.a2a_server.door import AgentDoor
from gateway.a2a_server.extended import ExtendedCards
from gateway.a2a_server.jsonrpc import JsonRpc
from gateway.a2a_server.notifications import Notifications
from gateway.a2a_server.operations import Offered, Operations
from gateway.a2a_server.rest import Rest
from gateway.admin import agents as admin_agents
from gateway.admin import audit as admin_audit
from gateway.admin import deadletters as admin_deadletters
from gateway.admin import decisions as admin_decisions
from gateway.admin import discovery as admin_discovery
from gateway.admin import grants as admin_grants
from gateway.admin import servers as admin_servers
from gateway.admin import tasks as admin_tasks
from gateway.admin.amendments import Amendments
from gateway.admin.api import admitted_by, api
from gateway.admin.desk import Desk
from gateway.admission import Admission, hosts_of
from gateway.asgi import Receive, Scope, Send
from gateway.broker import Broker
from gateway.card_source import CardSource
from gateway.collector import settle
from gateway.database import Database, bump, engine_for
from gateway.decisions import READ_AUDIT
from gateway.errors import TABLE
from gateway.front import App, Doors, Front
from gateway.front_door import FrontDoor
from gateway.health import Health
from gateway.home import prepared
from gateway.ledger import Ledger, Outside
from gateway.mcp_server.endpoint import Endpoint
from gateway.mcp_server.legacy import Sessions
from gateway.mcp_server.offers import Offers
from gateway.mcp_server.tools import Tools
from gateway.metrics import Metrics
from gateway.migrations import HEAD
from gateway.oauth import metadata as oauth_metadata
from gateway.oauth import token as oauth_token
from gateway.oauth.client import ClientAuthentication
from gateway.onboarding import Onboarding
from gateway.onboarding import Outside as Sources
from gateway.outbox import Outbox
from gateway.planting import AGAIN_SECONDS, Planting, seeds_of
from gateway.postman import POST_SECONDS, Postman, Seal
from gateway.presence import Presence
from gateway.pulse import Pulse
from gateway.push import Push
from gateway.refresh import ROUND_SECONDS, Refresh
from gateway.revocation import Revocation
from gateway.settings import Settings, upstream_headers
from gateway.task_pages import TaskPages
from gateway.task_reader import TaskReader
from gateway.tasks import TaskLog, is_over
from gateway.telemetry import Tracing, current_trace_id
from gateway.turns import Memory
from gateway.visits import Visits
from policies.audit import Audit
from policies.audit_heads import HeadsFile
from policies.authority import Authority, Caller, Request, Surroundings
from policies.cedar import PolicyEngine
from policies.claims import DEVELOPMENT_ISSUER, TrustedIssuer
from policies.client_assertion import ClientAssertions
from policies.grant import Act
from policies.grants import Grants
from policies.hop_tokens import HopTokens, Minting
from policies.identity import Identity
from policies.ids import new_id, now_us
from policies.keys import SigningKeys
from policies.permissions import Permissions, ceiling_of
from policies.pinned_keys import PinnedKeys
from policies.spent import SpentIds
from registry.card import Registration, Skill
from registry.health import Probes
from registry.renewal import Renewal
from registry.search import Search
from registry.seeds import Seeds
from registry.signing import republished, union
from registry.store import Registry

if TYPE_CHECKING:
    from gateway.otlp import Otlp

log = structlog.get_logger()
SETTINGS = "INTERLOCK_SERVING"
VERSION = "0.1.0"
SWEEP_SECONDS = 60.0
CHECKPOINT_SECONDS = 1.0


def serve(settings: Settings) -> None:
    """Runs the gateway until a signal. With several workers each builds its own, from the same settings.

    Raises HomeInUse, KeysUnusable, BadPolicy and ValueError for a gateway that can't be built.
    """
    os.environ[SETTINGS] = settings.model_dump_json()
    alone = settings.workers == 1
    uvicorn.run(
        application(Gateway(settings)) if alone else "gateway.app:from_environment",
        factory=not alone,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        proxy_headers=bool(settings.server.trusted_proxies),
        forwarded_allow_ips=settings.server.trusted_proxies,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def from_environment() -> Front:
    """What a worker serves."""
    return application(Gateway(Settings.model_validate_json(os.environ[SETTINGS])))


class Gateway:
    """One process of the gateway: every part, made and joined. `start` and `stop` run in its event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = prepared(settings.home, settings.public_url, settings.database_url.startswith("sqlite"))
        logs.configure(settings.telemetry.log_level, current_trace_id)
        self.metrics = Metrics({row.reason for row in TABLE.values()} | {"bad-envelope", "unknown-session"})
        self.keys = SigningKeys.open(settings.home)
        self.process = new_id("p")
        self.database = Database(engine_for(settings.database_url, self.process))
        _migrate(self.database)
        self.audit = Audit(new_id("a"), now_us)
        self.database.enlist(self.audit)
        self.egress = Egress(settings.allowed_targets)
        self.registry = Registry(self.database, lambda batch: bump(batch, "registry"), new_id, now_us)
        self.engine = PolicyEngine(settings.roles, Path(settings.policies) if settings.policies else None)
        self.identity = self._identity()
        self.grants = Grants(self.database, time.time, is_over)
        self.authority = Authority(self.identity, self.engine, self.grants, self._surroundings())
        minting = Minting(settings.public_url, settings.identity.hop_ttl, new_id, time.time)
        self.tokens = HopTokens(self.keys, self.identity, self.grants, minting)
        self.tools = McpTools(McpPool(self.egress, time.monotonic), self._commands())
        self.doorbells = Doorbells(settings.public_url)
        self.catalog = Catalog(self.egress, self._grpc_transport, self.doorbells)
        self.onboarding = Onboarding(self.registry, self._sources(), self.catalog.kinds)
        self.renewal = Renewal(self.database, self.registry)
        self.refresh = Refresh(self.registry, self.onboarding, self.renewal, Probes(self.database, now_us))
        self.search = Search(self.database, self.registry)
        self.planting = Planting(Seeds(self.registry, self.renewal, self.onboarding.survey), seeds_of(settings.agents, settings.servers))
        self.exporter: Otlp | None = None
        self.opening: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.closing: list[Callable[[], Coroutine[Any, Any, None]]] = []  # doors, before the turns end
        self.parting: list[Callable[[], Coroutine[Any, Any, None]]] = []  # from agents, after them
        self.memory = self._memory()
        self.push = Push(self.database, self.egress.vet, new_id, now_us)
        self.outbox = Outbox(self.database, new_id, now_us)
        self.postman = Postman(self.outbox, self.memory.tasks, self.egress, Seal(self.keys, settings.public_url, time.time))
        outside = self._outside()
        self.ledger = Ledger(self.authority, self.tokens, self.memory, outside)
        self.front_door = FrontDoor(self.registry, self.database, self.authority.may)
        self.broker = Broker(self.registry, self.ledger, self.memory, outside, self.front_door)
        heads = HeadsFile(settings.home / "audit.heads", self.keys, now_us)
        self.pulse = Pulse(self.database, self.audit, heads, Presence(self.database, self.process, now_us))
        heads.compact()

    def _commands(self) -> Commands | None:
        """Servers that are commands of the configuration file; the client library is loaded only where there are any."""
        seeds = [seed for seed in self.settings.servers if seed.command]
        if not seeds:
            return None
        from adapters.mcp_stdio import Command, StdioServers

        return StdioServers({seed.name: Command(seed.command, tuple(seed.args), seed.env) for seed in seeds}, time.monotonic)

    def _grpc_transport(self) -> Transport:
        """To agents over gRPC; its libraries are loaded when the first is called."""
        from adapters.a2a_grpc import GrpcTransport

        transport = GrpcTransport(self.egress, time.monotonic)
        self.parting.append(transport.close)
        return transport

    def _sources(self) -> Sources:
        """Where registrations come from, and who is trusted to sign cards."""
        keys = PinnedKeys(self.egress.fetch, self.settings.cards.key_origins)
        return Sources(CardSource(self.egress, keys, upstream_headers), self.tools, keys, upstream_headers)

    def _identity(self) -> Identity:
        given = self.settings.identity.issuers
        issuers = [TrustedIssuer(**{**issuer.model_dump(), "algorithms": tuple(issuer.algorithms)}) for issuer in given]
        return Identity(self.settings.public_url, self.keys, issuers, self.egress.fetch, self.settings.development)

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            roles_now=self._roles_now,
            ceiling_now=self._ceiling_now,
            role_permissions={role: Permissions.of(texts) for role, texts in self.settings.roles.items()},
            new_id=new_id,
            now=time.time,
            fresh=lambda: self.database.fresh,
        )

    def _roles_now(self, issuer: str, subject: str, vouched: Sequence[str]) -> tuple[str, ...]:
        return self.settings.roles_of(subject) if issuer == DEVELOPMENT_ISSUER else tuple(vouched)

    def _ceiling_now(self, tenant: str, agent: str) -> Permissions | None:
        ceiling = self.registry.ceiling(tenant, agent)
        return None if ceiling is None else ceiling_of(ceiling)

    def _memory(self) -> Memory:
        tasks = TaskLog(self.database, now_us, self.process)
        return Memory(self.database, self.audit, self.grants, tasks, new_id, now_us)

    def _outside(self) -> Outside:
        limits, credentials = self.settings.limits, lambda target: upstream_headers(target.upstream)
        return Outside(self.catalog, self.tools, credentials, limits.agent_timeout, limits.tool_timeout)

    async def keep(self, record: Mapping[str, object]) -> None:
        await self.database.write(lambda batch: self.audit.append(batch, record))

    def published(self, found: Registration, offered: Callable[[Skill], bool] | None = None) -> dict[str, Any]:
        """The signed card of an agent, with all of its skills or those `offered`."""
        return republished(found, self.settings.public_url, self.keys, offered, self.settings.public_grpc)

    def united(self, found: Registration, card: Mapping[str, Any]) -> dict[str, Any]:
        return union(found, card, self.settings.public_url, self.keys)

    async def allowed(self, caller: Caller, act: Act) -> object:
        """The Grant for an act of administration, kept; raises Refused."""
        grant = await self.ledger.granted(caller, Request(act, caller.principal.tenant))
        await self.ledger.keep(grant)
        return grant

    async def lifespan(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI lifespan: start before the first request, stop after the last."""
        await receive()
        try:
            await self.start()
        except Exception as error:  # the process's root: whatever fails, the server is told and ends
            log.exception("start_failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        settle()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Opens the database, the audit chain and the loops."""
        self.database.start()
        await self.database.refresh()
        await self.registry.reload()
        await self.search.mend()
        await self.database.write(lambda batch: self.audit.open(batch.connection, batch))
        for name in ("registry", "grants", "policies"):
            self.database.watch(name, self.authority.forget)
        self.database.watch("keys", self.identity.clear)
        self.database.watch("registry", self.registry.reload)
        await self.pulse.begin(self.broker)
        self.pulse.repeat(SWEEP_SECONDS, self.tools.sweep)
        self.pulse.repeat(CHECKPOINT_SECONDS, self.database.checkpoint)
        await self.planting.begin()
        self.pulse.repeat(AGAIN_SECONDS, self.planting.round)
        self.pulse.repeat(ROUND_SECONDS, self.refresh.round)
        self.pulse.repeat(POST_SECONDS, self.postman.round)
        self._opened = [asyncio.create_task(each()) for each in self.opening]  # nobody waits until they are ready

    async def stop(self) -> None:
        """Lets turns under way end for a moment, keeps what is there to keep, and lets go of everything."""
        await asyncio.gather(*self._opened)
        await asyncio.gather(*(close() for close in self.closing))
        await self.broker.close()
        await asyncio.gather(*(part() for part in self.parting))
        await self.pulse.end()
        await self.postman.close()
        await self.tools.close()
        await self.egress.close()
        self.database.close()
        await self.pulse.keep_head()
        if self.exporter is not None:
            self.exporter.close()
        if self._lock is not None:
            self._lock.close()


def application(gateway: Gateway) -> Front:
    """The ASGI application."""
    settings, url = gateway.settings, gateway.settings.public_url
    admission = Admission(gateway.authority, url, hosts_of(url, settings.host, settings.port))
    separator = "." if settings.server.tool_names == "dot" else "_"
    tools, size = Tools(Offers(gateway.registry, gateway.authority), separator), settings.server.max_body
    endpoint = Endpoint(admission, gateway.broker, tools, Sessions(time.monotonic), size)
    visits, operations = Visits(_tracing(gateway), gateway.metrics), _operations(gateway)
    agents = _agent_door(gateway, admission, operations, visits)
    doors = Doors(agents, endpoint, _health(gateway, admission), _rest(gateway, admission), gateway.lifespan)
    if settings.grpc_port:
        gateway.opening.append(lambda: _open_grpc(gateway, admission, operations, visits))
    return Front(admission, doors, visits)


def _operations(gateway: Gateway) -> Operations:
    """What every binding of A2A offers."""
    extended = ExtendedCards(gateway.published, gateway.front_door, gateway.authority.may)
    offered = Offered(TaskReader(gateway.memory.tasks), TaskPages(gateway.database), gateway.push, extended.extended_card)
    return Operations(gateway.broker, offered)


def _agent_door(gateway: Gateway, admission: Admission, operations: Operations, visits: Visits) -> AgentDoor:
    size = gateway.settings.server.max_body
    front_door = replace(gateway.front_door.registration("default"), created=now_us(), updated=now_us())
    cards = Cards(admission, gateway.registry, front_door, Publishing(gateway.published, gateway.united, gateway.keys))
    jsonrpc, rest = JsonRpc(admission, operations, size), Rest(admission, operations, size)
    return AgentDoor(jsonrpc, rest, cards, Notifications(gateway.doorbells), visits)


async def _open_grpc(gateway: Gateway, admission: Admission, operations: Operations, visits: Visits) -> None:
    """The door for gRPC, whose libraries are loaded only where it is on."""
    from gateway.a2a_server.grpc import GrpcDoor

    settings, door = gateway.settings, GrpcDoor(admission, operations, visits, gateway.settings.server.max_body)
    gateway.closing.append(door.close)
    await door.open(settings.host, settings.grpc_port, shared=settings.workers > 1)


def _tracing(gateway: Gateway) -> Tracing:
    """Spans; sent to a collector where the standard environment variable names one."""
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from gateway.otlp import exporter_from_environment

        gateway.exporter = exporter_from_environment(VERSION)
    return Tracing(gateway.settings.telemetry.sample, gateway.exporter)


def _health(gateway: Gateway, admission: Admission) -> Health:
    checks = {"database": lambda: gateway.database.fresh and gateway.database.writable, "policies": lambda: gateway.engine.healthy}

    async def may_read(scope: Scope) -> bool:
        return await admission.admits(scope, "/metrics", lambda caller: gateway.authority.may(caller, READ_AUDIT))

    return Health(checks, gateway.metrics.render, may_read, challenge=admission.challenge(""))


def _rest(gateway: Gateway, admission: Admission) -> App:
    """All that the framework serves."""
    admitted, may, url = admitted_by(admission), gateway.authority.may, gateway.settings.public_url
    issuers = [issuer.issuer for issuer in gateway.settings.identity.issuers]
    desk, size = Desk(gateway.registry, may, gateway.allowed, gateway.search), gateway.settings.server.max_body
    amendments = Amendments(desk, gateway.registry, gateway.onboarding, gateway.renewal, gateway.refresh)
    assertions = ClientAssertions((url, f"{url}/oauth/token"), time.time)
    clients = ClientAuthentication(gateway.registry, assertions, SpentIds(gateway.database, now_us))
    revocation = Revocation(gateway.database, gateway.grants, gateway.audit, now_us)
    return api(
        admission,
        [
            oauth_metadata.routes(url, gateway.keys, issuers),
            oauth_token.routes(clients, gateway.tokens, gateway.keep),
            admin_agents.routes(desk, amendments, gateway.onboarding, admitted, size),
            admin_servers.routes(desk, amendments, gateway.onboarding, admitted, size),
            admin_tasks.routes(gateway.database, gateway.memory.tasks, admitted),
            admin_decisions.routes(gateway.database, admitted, may),
            admin_grants.routes(revocation, admitted, may),
            admin_audit.routes(gateway.database, admitted, gateway.allowed),
            admin_discovery.catalog_routes(gateway.registry, gateway.front_door, url),
            admin_discovery.routes(desk, admitted, url),
            admin_deadletters.routes(gateway.outbox, admitted, gateway.allowed),
        ],
        documented=gateway.settings.development,
    )


def _migrate(database: Database) -> None:
    """Alembic is loaded only when there is something to do."""
    if database.revision() != HEAD:
        from gateway.migrations.run import upgrade

        upgrade(database.engine)
