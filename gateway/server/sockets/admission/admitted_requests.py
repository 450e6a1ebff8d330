"""Admission of requests at the sockets: whose a request is, by its headers alone, and how many were refused."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from gateway.calls.limits.slots import Overloaded
from gateway.concurrency.admission import Admission
from gateway.server.sockets.admission.refusals import OVERLOADED_TEXT, RETRY_SECONDS, RefusalBatch, RefusalBytes
from gateway.server.sockets.admission.whole_requests import WholeRequests
from gateway.server.sockets.freed_memory import release_freed_memory

PROBE_PATHS: Final = frozenset({b"/livez", b"/readyz"})  # start at once, however busy the process is
RESERVED_PATHS: Final = (b"/metrics", b"/console", b"/api/kill", b"/api/grants", b"/api/agents", b"/api/servers", b"/api/audit")
"""Operations that an operator needs most while a process is overloaded. Paths below them belong to them too."""
CONSOLE_COOKIE: Final = b"interlock-console"  # ends or begins the name of the cookie of a console's session
UNKNOWN_TENANT: Final = "?"  # of requests without a known token; no tenant has this name
REPORT_SECONDS: Final = 10.0
REPORTED_MAX: Final = 1000  # owners whose refusals are counted between two reports
log = structlog.get_logger()


class RefusalReports:
    """Counts refusals of admission, and reports them every REPORT_SECONDS: one line in the log, and one record for each known caller."""

    def __init__(
        self,
        admission: Admission,
        count: Callable[[str], None],
        report_owner: Callable[[str, int], None],
        release_memory: Callable[[], None] = release_freed_memory,
    ) -> None:
        """`count` gets the class of each refused request, and `report_owner` a known owner with the number of their refusals.

        `release_memory` is called in a thread after each report: many requests have come and gone.
        """
        self._admission = admission
        self._release_memory = release_memory
        self._count = count
        self._report_owner = report_owner
        self._by_owner: Counter[str] = Counter()
        self._by_class: Counter[str] = Counter()

    def add(self, owner: str) -> None:
        """Counts one refused request of `owner`."""
        kind = "unknown" if owner.startswith(UNKNOWN_TENANT) else "known"
        self._count(kind)
        if not self._by_class:
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self.report)
        self._by_class[kind] += 1
        if kind == "known" and (owner in self._by_owner or len(self._by_owner) < REPORTED_MAX):
            self._by_owner[owner] += 1

    def report(self) -> None:
        """Reports what was counted, and begins anew."""
        classes, self._by_class = self._by_class, Counter()
        owners, self._by_owner = self._by_owner, Counter()
        iteration = round(self._admission.iteration_seconds * 1000, 1)
        log.warning("overload_refused", **classes, waiting=self._admission.waiting_count, iteration_ms=iteration)
        asyncio.get_running_loop().run_in_executor(None, self._release_memory)
        for owner, count in owners.items():
            self._report_owner(owner, count)


class RequestAdmission:
    """The admission of one process, for all of its sockets."""

    def __init__(
        self,
        admission: Admission | None = None,
        find_owner: Callable[[str], str] = lambda token: "",
        reports: RefusalReports | None = None,
    ) -> None:
        """`find_owner` returns the owner of a bearer token, or of the cookie of a console's session, or "" for an unknown one."""
        self.admission = admission or Admission()
        self._find_owner = find_owner
        self._reports = reports or RefusalReports(self.admission, lambda kind: None, lambda owner, count: None)
        self.refusals = RefusalBytes()
        self.refusal_batch = RefusalBatch()
        self.whole_requests = WholeRequests()

    def owner_of(self, authorization: bytes, address: str, cookie: bytes = b"") -> str:
        """Returns whose share a request counts in: the owner of its token or of its console's session, else the client's address."""
        secret = authorization.partition(b" ")[2]
        if not authorization and CONSOLE_COOKIE in cookie:
            secret = cookie.partition(CONSOLE_COOKIE)[2].partition(b"=")[2].partition(b";")[0]
        owner = self._find_owner(secret.decode("latin-1")) if secret else ""
        return owner or f"{UNKNOWN_TENANT}|{address}"

    def count_refusal(self, owner: str) -> None:
        self._reports.add(owner)

    async def admit_call(self, authorization: str | None, address: str) -> None:
        """Returns when a call over gRPC may start. Raises Overloaded."""
        if self.admission.try_start():
            return
        owner = self.owner_of((authorization or "").encode("latin-1", "replace"), address)
        call = _WaitingCall(asyncio.get_running_loop().create_future())
        if not self.admission.wait(owner, call) or not await call.outcome:
            self.count_refusal(owner)
            raise Overloaded(OVERLOADED_TEXT, RETRY_SECONDS[0])


class _WaitingCall:
    """A call over gRPC that waits. A canceled one does not start."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: "asyncio.Future[bool]") -> None:
        self.outcome = outcome

    def start(self) -> bool:
        if self.outcome.done():
            return False
        self.outcome.set_result(True)
        return True

    def refuse(self) -> None:
        if not self.outcome.done():
            self.outcome.set_result(False)
