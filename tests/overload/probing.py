"""What else is asked of a gateway under load: probes, administration, and whether it is normal again."""

import http.client
import json
import socket
import time
from collections import defaultdict
from dataclasses import dataclass, field

from tests.bench.interlock import PATHS, send_request
from tests.bench.load import percentile, whole_reply
from tests.bench.processes import Running, resident_mb
from tests.bench.workload import FIRST_ID, WORKLOADS, Script

PAUSE = 0.25  # seconds between two rounds of questions
NORMAL_CALLS = 50  # calls in a row that are as fast as before
SETTLE_MAX = 30.0  # seconds after which a gateway counts as never normal again


def call_once(running: Running, token: str) -> int:
    """The status of one tools/call; 0 for none."""
    work = WORKLOADS["mcp"]
    document = json.loads(work.body % {b"id": FIRST_ID, b"text": b"hello"})
    try:
        return send_request(running, PATHS["mcp"], token, document, work.headers)[0]
    except (OSError, http.client.HTTPException):
        return 0


@dataclass(slots=True)
class Probes:
    """Questions that are always answered. `failed` has the first of each kind that was not answered 200; `times` are in seconds."""

    running: Running
    admin: str
    end: float
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, str] = field(default_factory=dict)
    mb_most: float = 0.0

    def run(self) -> None:
        """Asks until `end`, and looks at the memory."""
        while time.monotonic() < self.end:
            self._ask("livez", "/livez")
            self._ask("readyz", "/readyz")
            self._ask("kill", "/api/kill", self.admin)
            self._ask("agents", "/api/agents", self.admin)
            self._ask("metrics", "/metrics", self.admin)
            self.mb_most = max(self.mb_most, resident_mb(self.running.pid))
            time.sleep(max(0.0, min(PAUSE, self.end - time.monotonic())))

    def p99_ms(self, *kinds: str) -> float | None:
        """Milliseconds until an answer, nearest rank; None if nothing was answered."""
        times = sorted(each for kind in kinds for each in self.times[kind])
        return percentile(times, 0.99) * 1e3 if times else None

    def _ask(self, kind: str, path: str, token: str = "") -> None:
        began = time.perf_counter()
        try:
            status, body = send_request(self.running, path, token)
        except (OSError, http.client.HTTPException) as error:
            self.failed.setdefault(kind, f"{type(error).__name__}: {error}")
            return
        if status == 200:
            self.times[kind].append(time.perf_counter() - began)
        else:
            self.failed.setdefault(kind, f"HTTP {status}: {body[:200]!r}")


@dataclass(frozen=True, slots=True)
class Normal:
    """How fast one caller is served while nobody else calls."""

    running: Running
    p50: float

    @classmethod
    def measured(cls, running: Running, script: Script) -> "Normal":
        """Raises OSError."""
        times = [_answer_seconds(running, script, number) for number in range(NORMAL_CALLS)]
        return cls(running, percentile(sorted(each for each in times if each is not None), 0.5))

    def await_again(self, script: Script) -> float:
        """Seconds until NORMAL_CALLS in a row are served and their median is at most twice the one of before."""
        began, number = time.perf_counter(), NORMAL_CALLS
        while time.perf_counter() < began + SETTLE_MAX:
            times: list[float] = []
            while len(times) < NORMAL_CALLS and (seconds := _answer_seconds(self.running, script, number)) is not None:
                times.append(seconds)
                number += 1
            if len(times) == NORMAL_CALLS and percentile(sorted(times), 0.5) <= 2 * self.p50 + 0.001:
                return time.perf_counter() - began
            number += 1
            time.sleep(0.01)
        return SETTLE_MAX


def _answer_seconds(running: Running, script: Script, number: int) -> float | None:
    """Seconds to the answer of a request; None when it was not served."""
    began = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
            connection.sendall(script.request(FIRST_ID + number))
            data = b""
            while (reply := whole_reply(data)) is None:
                if not (more := connection.recv(65536)):
                    return None
                data += more
    except OSError:
        return None
    return time.perf_counter() - began if reply[0] == 200 else None
