"""The running gateway: whether it is ready, and what its metrics say."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from adapters.version import find_commit
from gateway.cli.exit_codes import CommandError
from gateway.cli.local import installation as home
from gateway.cli.local.doctor.kinds import DoctorFinding
from gateway.cli.tokens.authorities import trusted_authorities

if TYPE_CHECKING:
    import httpx

    from gateway.server.settings import Settings

ANSWER_SECONDS: Final = 5.0
METRICS_BYTES: Final = 32 << 20
LAG_SECONDS: Final = 0.05  # on average
COMMIT_SECONDS: Final = 0.1  # on average
USED_SHARE: Final = 0.8
FEW_OBSERVATIONS: Final = 50


@dataclass(frozen=True, slots=True)
class Samples:
    """The values of /metrics. `by_series` has the labels too, as the text shows them."""

    by_name: Mapping[str, float]  # sums over all labels
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name: labels of its first series

    def __getitem__(self, name: str) -> float:
        return self.by_name.get(f"interlock_{name}", 0.0)

    def average(self, name: str) -> float:
        """Returns the average of a histogram of seconds; 0 for few observations."""
        count = self[f"{name}_seconds_count"]
        return self[f"{name}_seconds_sum"] / count if count >= FEW_OBSERVATIONS else 0.0


@dataclass(frozen=True, slots=True)
class Running:
    """What a running gateway answered. Without an answer of the gateway of this home, `readiness` is None."""

    url: str
    readiness: Mapping[str, Any] | None = None
    metrics: str = ""
    problem: str = ""
    is_of_other_home: bool = False


def ask_gateway(settings: "Settings") -> Running:
    """Asks the gateway at INTERLOCK_URL, or at the address of the settings, how it is. Takes at most a few seconds."""
    import httpx

    url = os.environ.get("INTERLOCK_URL") or local_url(settings)
    with httpx.Client(base_url=url.rstrip("/"), timeout=ANSWER_SECONDS, verify=trusted_authorities(url), trust_env=False) as client:
        try:
            answer = client.get("/readyz")
            readiness = answer.json()
            if not isinstance(readiness, dict) or "checks" not in readiness:
                return Running(url, problem=f"another program answers at {url}")
            if not _publishes_keys_of(client, settings):
                problem = f"{url} publishes other keys than those in {(settings.home / 'keys').absolute()}"
                return Running(url, problem=problem, is_of_other_home=True)
            found, problem = _read_metrics(client, settings, url)
            return Running(url, readiness, found, problem)
        except (httpx.HTTPError, ValueError) as error:
            return Running(url, problem=f"nothing answers at {url}: {type(error).__name__}")


def _publishes_keys_of(client: "httpx.Client", settings: "Settings") -> bool:
    """Returns whether the gateway publishes a key of this home, and True where that can't be told. A home without keys has no gateway."""
    if not (settings.home / "keys").is_dir():
        return False
    try:
        own = home.open_signing_keys(settings).jwks()["keys"]
        published = client.get("/.well-known/jwks.json").json()["keys"]
        return not {key["kid"] for key in own}.isdisjoint(key["kid"] for key in published)
    except (CommandError, ValueError, KeyError, TypeError):
        return True


def local_url(settings: "Settings") -> str:
    """Returns the address at which this machine reaches the gateway of the settings."""
    from gateway.server.settings import WILDCARDS

    host = "127.0.0.1" if settings.host in WILDCARDS else settings.host
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _read_metrics(client: "httpx.Client", settings: "Settings", url: str) -> tuple[str, str]:
    """Returns the body of /metrics and an empty text, or an empty text and why it can't be read."""
    token = _find_metrics_token(settings, url)
    if not token:
        return "", "no token for /metrics"
    with client.stream("GET", "/metrics", headers={"Authorization": f"Bearer {token}"}) as answer:
        if answer.status_code != 200:
            return "", f"/metrics answers {answer.status_code}"
        body = b""
        for part in answer.iter_bytes():
            body += part
            if len(body) > METRICS_BYTES:
                return "", "/metrics is too long"
    return body.decode(errors="replace"), ""


def _find_metrics_token(settings: "Settings", url: str) -> str:
    from adapters.contract import UpstreamFault
    from gateway.cli.tokens.sessions import find_token
    from gateway.server.settings import resolve_credential

    if settings.telemetry.metrics_token:
        try:
            return resolve_credential(settings.telemetry.metrics_token)
        except (UpstreamFault, OSError, UnicodeDecodeError):
            return ""  # a finding of `interlock check`
    try:
        return os.environ.get("INTERLOCK_TOKEN") or find_token(url)
    except CommandError:
        return ""


def parse_metrics(text: str) -> Samples:
    """Returns the sums of /metrics by the names of its series."""
    from prometheus_client.parser import text_string_to_metric_families

    sums: dict[str, float] = {}
    labels: dict[str, dict[str, str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            labels.setdefault(sample.name, dict(sample.labels))
    return Samples(sums, labels)


def judge_running(running: Running) -> Iterator[DoctorFinding]:
    """Yields what is wrong with a running gateway."""
    if running.readiness is None:
        yield DoctorFinding("gateway.other-home" if running.is_of_other_home else "gateway.not-running", running.problem)
        return
    failed = [name for name, passes in running.readiness["checks"].items() if not passes]
    if failed:
        id_ = "gateway.degraded" if running.readiness.get("status") == "degraded" else "gateway.not-ready"
        yield DoctorFinding(id_, f"{', '.join(failed)} at {running.url}/readyz", f"curl -s {running.url}/readyz")
    if not running.metrics:
        yield DoctorFinding("gateway.metrics-unread", running.problem)
        return
    yield from judge_metrics(parse_metrics(running.metrics))


def judge_metrics(found: Samples) -> Iterator[DoctorFinding]:
    """Yields what the metrics of a gateway show, since the start of its processes."""
    if blocked := int(found["event_loop_blocked_seconds_count"]):
        yield DoctorFinding("gateway.loop-blocked", f"{blocked} times, for {found['event_loop_blocked_seconds_sum']:.1f} s in all")
    if (lag := found.average("event_loop_lag")) > LAG_SECONDS:
        yield DoctorFinding("gateway.loop-slow", f"it responds after {lag * 1000:.0f} ms on average")
    if (wait := found.average("writer_wait")) > COMMIT_SECONDS:
        yield DoctorFinding("gateway.writer-slow", f"a commit takes {wait * 1000:.0f} ms on average")
    if found["call_slots_used"] > USED_SHARE * found["call_slots"] or found["calls_waiting"]:
        used = f"{found['call_slots_used']:.0f} of {found['call_slots']:.0f} slots are in use"
        yield DoctorFinding("gateway.slots-used", f"{used}, {found['calls_waiting']:.0f} calls wait")
    if found["open_files"] > USED_SHARE * found["open_files_max"]:
        yield DoctorFinding("gateway.files-used", f"{found['open_files']:.0f} of {found['open_files_max']:.0f} files are open")
    if ejected := int(found["agents_ejected"] + found["servers_ejected"]):
        yield DoctorFinding(
            "gateway.breakers-open", f"{int(found['agents_ejected'])} agents, {ejected - int(found['agents_ejected'])} servers"
        )
    if kills := int(found["kills"]):
        yield DoctorFinding("gateway.kills", f"{kills} are stopped")
    yield from _judge_version(found.labels.get("interlock_build_info", {}))


def _judge_version(build: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Yields another version or commit than that of this command. A commit that either does not know is not compared."""
    from adapters.version import VERSION

    own, commit = find_commit(), build.get("commit", "unknown")
    is_other_commit = bool(own) and commit not in ("unknown", own)
    if build and (build.get("version") != VERSION or is_other_commit):
        theirs = f"{build.get('version')} ({commit[:12]})"
        yield DoctorFinding("gateway.other-version", f"it runs {theirs}, this command is {VERSION} ({own[:12] or 'unknown'})")
