"""What `interlock doctor` can find. docs/doctor.md has a row for each."""

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["problem", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("problem", "warning", "note")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding: how bad it is, what it means, and what to do where the finding itself says nothing better."""

    severity: Severity
    meaning: str
    todo: str


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """What was found. `id` is a key of KINDS."""

    id: str
    detail: str
    todo: str = ""

    @property
    def kind(self) -> Kind:
        return KINDS[self.id]

    def to_document(self) -> dict[str, str]:
        """Returns the finding as --json prints it."""
        kind = self.kind
        return {"id": self.id, "severity": kind.severity, "meaning": kind.meaning, "found": self.detail, "todo": self.todo or kind.todo}


_PROBLEMS = {
    "install.packages": ("The gateway's packages do not come from its own distribution.", "install it in an environment of its own"),
    "settings.invalid": ("The gateway does not start, or fails, with these settings.", "correct the setting; interlock check"),
    "home.unusable": ("The gateway can't use its home folder.", "check INTERLOCK_HOME, its owner and its modes"),
    "disk.full": (
        "Writes fail soon, and the gateway then refuses every call.",
        "free space, or move INTERLOCK_HOME; interlock audit prune",
    ),
    "keys.unusable": ("The gateway can't sign tokens.", "interlock check; restore keys/ from the backup"),
    "keys.readable": ("Others can read a key, and make tokens with it.", "chmod -R go= KEYS; then interlock keys rotate"),
    "vault.unusable": ("Stored credentials can't be decrypted.", "check vault.keys, or restore keys/vault from the backup"),
    "database.unusable": ("The database can't be reached or used.", "start it, or correct database.url; interlock check"),
    "policies.invalid": ("The policies have an error; a running gateway works on with the last valid ones.", "interlock policy check"),
    "workflows.invalid": ("A workflow document is refused.", "correct the document; interlock check"),
    "sign-in.unusable": ("People can't sign in with this provider.", "correct sign_in.providers"),
    "sandbox.missing": ("The sandbox is wanted and can't run.", "apt-get install bubblewrap; or set sandbox: off"),
    "issuers.unreachable": ("Tokens of this issuer are refused once its cached keys expire.", "curl JWKS_URL from this machine"),
    "issuers.no-keys": ("No token of this issuer can be verified.", "correct identity.issuers[].jwks_url"),
    "certificates.expired": ("Connections to this host fail.", "renew the certificate, and reload the server that ends TLS"),
    "gateway.not-ready": ("The running gateway answers 503 at /readyz, and load balancers take it out.", "curl -s URL/readyz; see the log"),
    "gateway.wrong-address": (
        "Another gateway answers at server.public_url; tokens made here are refused there.",
        "correct server.public_url",
    ),
}
_WARNINGS = {
    "settings.unwise": ("The settings work, but hardly as intended.", "correct the setting; interlock check"),
    "settings.any-proxy": ("Any client can state its own address.", "list the addresses of your proxies in server.trusted_proxies"),
    "settings.no-proxy": ("All people share the proxy's address in limits of sign-in.", "list your proxy in server.trusted_proxies"),
    "settings.debug-log": ("The log is large and slows the gateway down.", "set telemetry.log_level: info"),
    "settings.public-url": (
        "Clients can't reach the address that cards and tokens name.",
        "curl PUBLIC_URL/livez; check DNS, proxy and TLS",
    ),
    "disk.low": ("The disk has little space left.", "free space; interlock audit prune"),
    "disk.slow": ("Each write waits for the disk: calls are slow.", "put INTERLOCK_HOME, or PostgreSQL's data, on a local SSD"),
    "files.few": ("The limit of open files bounds calls and connections.", "raise LimitNOFILE (systemd), or ulimit -n, to 65536"),
    "keys.old": ("A key that leaked long ago would still sign.", "interlock keys rotate"),
    "clock.skewed": ("Tokens are refused as expired or not yet valid.", "run an NTP client, such as chrony, on both machines"),
    "database.fills-disk": ("At the growth of the last days the disk is full within a month.", "interlock audit prune; or a larger disk"),
    "database.wal-large": (
        "A long read keeps SQLite from truncating its write-ahead log.",
        "end programs that hold the file open; restart",
    ),
    "database.long-transaction": ("A transaction keeps old rows and locks.", "SELECT pg_terminate_backend(PID)"),
    "database.autovacuum-off": (
        "Deleted rows are never reused: tables and indexes grow.",
        "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()",
    ),
    "database.dead-rows": ("Autovacuum does not keep up with a table.", "VACUUM (ANALYZE) TABLE"),
    "database.no-statistics": ("PostgreSQL plans queries of a table blindly.", "ANALYZE TABLE"),
    "database.connections": ("PostgreSQL soon refuses connections.", "raise max_connections, or run fewer workers"),
    "policies.doubtful": ("A policy hardly has the intended effect.", "interlock policy check"),
    "sign-in.doubtful": ("Sign-in works, with a limitation.", "see docs/providers.md"),
    "sandbox.weak": ("Code runs with weaker isolation, or not at all.", "apt-get install bubblewrap, and allow user namespaces"),
    "traces.unreachable": ("Traces are lost.", "start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT"),
    "certificates.ending": ("Connections to this host fail in a few days.", "renew the certificate"),
    "certificates.untrusted": (
        "This machine does not trust the certificate of a host.",
        "install its issuer's certificate, or correct the URL",
    ),
    "gateway.degraded": ("A check of /readyz fails that the gateway tolerates.", "curl -s URL/readyz; interlock policy check"),
    "gateway.loop-blocked": ("Single pieces of work stopped all requests of a process.", "the log's event_loop_blocked names the place"),
    "gateway.loop-slow": ("The event loop responds late: the process has too little CPU.", "give it a core of its own, or add workers"),
    "gateway.slots-used": (
        "Further calls wait, and are refused after limits.queue_seconds.",
        "raise limits.calls, or add workers; interlock task list",
    ),
    "gateway.writer-slow": ("Calls wait for commits.", "interlock doctor finds a slow disk or database; see docs/runbooks.md"),
    "gateway.files-used": ("New connections are refused soon.", "raise LimitNOFILE; look for clients that leave connections open"),
    "gateway.breakers-open": (
        "Agents or servers are not called, because they failed.",
        "interlock agent list --failing; interlock server list --failing",
    ),
    "gateway.other-home": (
        "Another gateway answers at this address, so nothing of the one of this home was looked at.",
        "set INTERLOCK_HOME to its home, or INTERLOCK_URL to the address of this one",
    ),
    "gateway.other-version": ("The running gateway is not the version of this command.", "restart the gateway; or use its own environment"),
    "entries.failing": ("Agents or servers don't answer their checks.", "interlock agent list --failing; interlock server list --failing"),
    "entries.quarantined": (
        "A card or tool changed suspiciously, and is not called until approved.",
        "interlock agent approve NAME; interlock server approve NAME",
    ),
    "deliveries.dead": ("Notifications, events or starts were given up.", "interlock deadletter list; interlock deadletter retry ID"),
    "deliveries.failing": ("Webhooks don't take what is sent to them.", "interlock deadletter list; check the receivers"),
    "tasks.waiting": ("People were asked for something, and did not answer.", "interlock task list --state input-required"),
    "tasks.lost": ("Tasks belong to processes that are gone, and none takes them over.", "start the gateway"),
    "questions.unanswered": ("Runs and calls wait for a decision.", "interlock approval list; interlock run checkpoints"),
    "doctor.incomplete": ("A check could not be made.", "see what is said; run as the user of the gateway"),
}
_NOTES = {
    "database.migration": (
        "The database has the schema of an older version.",
        "restart the gateway, which migrates it; or interlock migrate",
    ),
    "gateway.not-running": ("No gateway answers at its address, so nothing of it was looked at.", "interlock serve; or set INTERLOCK_URL"),
    "gateway.metrics-unread": (
        "The metrics of the running gateway were not looked at.",
        "set telemetry.metrics_token, or INTERLOCK_TOKEN of an operator",
    ),
    "gateway.kills": ("Operators have stopped agents, servers or people.", "interlock kill list"),
    "entries.pending": ("Registered agents or servers wait for an operator.", "interlock agent list; interlock agent approve NAME"),
    "runs.queued": ("Runs wait for their turn, because their workflow limits how many run at once.", "interlock run list"),
}
_GROUPS: tuple[tuple[Severity, dict[str, tuple[str, str]]], ...] = (("problem", _PROBLEMS), ("warning", _WARNINGS), ("note", _NOTES))
KINDS: Final = {id_: Kind(severity, *texts) for severity, group in _GROUPS for id_, texts in group.items()}
