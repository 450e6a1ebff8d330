"""The only database writer: concurrent writes share one durable commit."""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from msgspec import Struct
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.concurrency.thread_policy import BatchScheduling
from gateway.storage.batch import Batch, WriteFailed
from gateway.storage.database_start import problem_of
from gateway.storage.transactions import JobOutcome, Participant, TransactionRunner, is_database_away

T = TypeVar("T")
Work = Callable[[Batch], T]
BATCH_JOBS_MAX = 512
DEFERRED_SECONDS = 0.05
DEFERRED_MAX = 10_000
COLLECT_SECONDS = 0.002  # for which jobs are collected at most while the event loop brings new ones
RETRY_SECONDS = 1.0  # between two attempts at posted writes while the database is away

log = structlog.get_logger()


class _Job(Struct, frozen=True):
    work: Work[Any]
    future: "asyncio.Future[Any] | None"  # None: a posted write
    on_abandoned: Callable[[Any], object] | None = None


class _Submission(Struct, frozen=True):
    """Jobs that were handed over together, and since when the first one waits, on time.monotonic."""

    jobs: list[_Job]
    since: float


class _JobCollector:
    """Collects jobs until an iteration of the event loop brings no new ones, and hands them over together.

    Each commit writes the last page of every index again, and each wake-up of the writer's thread makes it compete for the interpreter's
    lock. A loop that has more to do would not get further with an earlier commit. Used on the event loop alone.
    """

    def __init__(self, hand_over: Callable[[_Submission], None]) -> None:
        self._hand_over = hand_over
        self._jobs: list[_Job] = []
        self._seen = 0  # how many there were an iteration ago
        self._since = 0.0  # when the first one came, on time.monotonic

    def add(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        if not self._jobs:
            self._since = time.monotonic()
            loop.call_soon(self._look, loop)
        self._jobs.append(job)

    def hand_over(self) -> None:
        """Hands over the jobs so far."""
        if self._jobs:
            jobs, self._jobs, self._seen = self._jobs, [], 0
            self._hand_over(_Submission(jobs, self._since))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if len(self._jobs) == self._seen or time.monotonic() - self._since > COLLECT_SECONDS:
            self.hand_over()
        else:
            self._seen = len(self._jobs)
            loop.call_soon(self._look, loop)


class Writer:
    """A thread that runs all waiting jobs in one transaction and wakes their callers after the commit.

    If one job fails, the transaction is rolled back and each job is tried alone, so that only the failing job fails.
    """

    def __init__(self, engine: Engine, observe_commit: Callable[[float], object] = lambda seconds: None) -> None:
        """`observe_commit` gets, after each commit, the seconds since the oldest of its jobs came."""
        self._transactions = TransactionRunner(engine)
        self._observe_commit = observe_commit
        self._jobs: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._collector = _JobCollector(self._submit)
        self._under_way = 0  # jobs whose callers wait, handed over or about to be; only the event loop counts them
        self._after_commit: dict[Callable[[], object], None] = {}  # each once, in the order in which they asked
        self._handed_over: deque[float] = deque()  # since when each submission in `_jobs` and in the commit under way waits
        self._deferred: deque[_Job] = deque()
        self._dropped = 0
        self._retry_after = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._thread_policy = BatchScheduling()
        self._is_running = False  # asked for at each write, and cheaper than the thread's `is_alive`
        self.is_healthy = True  # whether the database took the last write
        self._thread = threading.Thread(target=self._run, name="interlock-writer", daemon=True)

    def enlist(self, participant: Participant) -> None:
        self._transactions.participants.append(participant)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_running = True
        self._thread.start()

    async def write(self, work: Work[T], on_abandoned: Callable[[T], object] | None = None) -> T:
        """Runs `work` in the next commit and returns its result once that is durable. `work` may run again after a rollback.

        A caller that is canceled while it waits does not stop the commit. `on_abandoned` then gets the result, on the event loop, so that
        what the commit took can be given back.

        Raises what `work` raised, IntegrityError for a duplicate, UnstorableValue, and WriteFailed for all other errors of the database.
        """
        if self._loop is None or self._closing or not self._is_running:
            raise WriteFailed("the database writer does not run")
        future: asyncio.Future[T] = self._loop.create_future()
        self._collector.add(_Job(work, future, on_abandoned), self._loop)
        self._under_way += 1
        try:
            return await future
        except asyncio.CancelledError:
            if on_abandoned is not None and future.done() and not future.cancelled() and future.exception() is None:
                on_abandoned(future.result())  # the cancellation came after the commit
            raise

    def _submit(self, submission: _Submission) -> None:
        self._handed_over.append(submission.since)
        self._jobs.put(submission)

    @property
    def wait_seconds(self) -> float:
        """For how long the oldest write that is not committed has waited; 0 if none waits, or if the database is known to be away."""
        if not self._handed_over or not self.is_healthy:
            return 0.0
        try:
            return time.monotonic() - self._handed_over[0]
        except IndexError:  # the writer's thread has removed the last one
            return 0.0

    def call_after_commit(self, callback: Callable[[], object]) -> bool:
        """Calls `callback` on the event loop after the commit under way, when its callers were woken.

        Returns False, and calls nothing, if no caller waits for a commit.
        """
        if not self._under_way:
            return False
        self._after_commit[callback] = None
        return True

    def post(self, work: Work[Any]) -> None:
        """Runs `work` with the next commit or within 50 ms, without a result.

        For writes that follow an effect, never for those before it.
        """
        if len(self._deferred) < DEFERRED_MAX:
            self._deferred.append(_Job(work, None))
        else:
            self._dropped += 1

    def close(self) -> None:
        """Writes what was submitted and stops the thread. Later writes are refused."""
        self._closing = True
        if self._thread.is_alive():
            self._collector.hand_over()
            self._jobs.put(None)
            self._thread.join(timeout=10)

    def _run(self) -> None:
        self._thread_policy.begin()
        try:
            self._run_until_closed()
        finally:
            self._is_running = False

    def _run_until_closed(self) -> None:
        last = False
        while not last:
            jobs, since, last, lists = self._take_jobs()
            self._run_jobs(jobs)
            if since:
                seconds = time.monotonic() - since
                self._observe_commit(seconds)
                self._thread_policy.adapt(seconds)
            for _ in range(lists):
                self._handed_over.popleft()
        while self._deferred and self.is_healthy:
            self._run_jobs(self._take_deferred())
        if self._deferred or self._dropped:
            log.error("posted_writes_lost", count=len(self._deferred) + self._dropped)
        self._transactions.drop_connection()

    def _take_jobs(self) -> tuple[list[_Job], float, bool, int]:
        """Returns the waiting jobs, about BATCH_JOBS_MAX at most, with the posted ones.

        With them it returns since when the oldest submitted one waits (0: there is none), whether they are the last, and from how
        many lists they are.
        """
        jobs: list[_Job] = []
        since, last, lists = 0.0, False, 0
        try:
            first = self._jobs.get(timeout=DEFERRED_SECONDS)
            while first is not None:
                jobs += first.jobs
                since = since or first.since
                lists += 1
                if len(jobs) >= BATCH_JOBS_MAX:
                    break
                first = self._jobs.get_nowait()
            last = first is None
        except queue.Empty:
            pass
        if self._deferred and (self.is_healthy or time.monotonic() > self._retry_after):
            jobs += self._take_deferred()
        return jobs, since, last, lists

    def _take_deferred(self) -> list[_Job]:
        return [self._deferred.popleft() for _ in range(min(len(self._deferred), BATCH_JOBS_MAX))]

    def _run_jobs(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            outcomes = self._transactions.run_jobs([job.work for job in jobs])
        except Exception:  # the root of the thread, which must not end
            log.exception("writer_failed")
            self._transactions.drop_connection()
            outcomes = [JobOutcome(None, WriteFailed("the writer failed"))] * len(jobs)
        done = list(zip(jobs, outcomes, strict=True))
        failed = [(job, outcome.error) for job, outcome in done if outcome.error is not None]
        if failed or self._dropped or not self.is_healthy:
            self._update_health(failed, len(done))
        self._wake_callers(done)

    def _update_health(self, failed: list[tuple[_Job, Exception]], job_count: int) -> None:
        """Whether the database is well. While it is away, what was posted waits for better times."""
        away = [(job, error) for job, error in failed if is_database_away(error)]
        is_healthy = len(away) < job_count
        if is_healthy != self.is_healthy:
            log.info("database_back") if is_healthy else log.error("database_away", problem=_describe_error(away[0][1]))
        self.is_healthy = is_healthy
        if not is_healthy:
            self._retry_after = time.monotonic() + RETRY_SECONDS
            self._deferred.extendleft(job for job, _ in reversed(away) if job.future is None)
            return
        lost = self._dropped + sum(1 for job, _ in failed if job.future is None)
        if lost:
            log.error("posted_writes_lost", count=lost)
            self._dropped = 0

    def _wake_callers(self, done: list[tuple[_Job, JobOutcome]]) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end_commit, done)
        except RuntimeError:
            log.debug("callers_gone", jobs=len(done))  # the event loop is closed

    def _end_commit(self, done: list[tuple[_Job, JobOutcome]]) -> None:
        """Wakes the callers of a commit, and then calls what waits for its end. Runs on the event loop."""
        self._under_way -= _resolve_futures(done)
        callbacks, self._after_commit = self._after_commit, {}
        for callback in callbacks:
            callback()


def _describe_error(error: Exception) -> str:
    cause = error.__cause__
    return problem_of(cause) if isinstance(cause, SQLAlchemyError) else repr(cause or error)


def _resolve_futures(done: list[tuple[_Job, JobOutcome]]) -> int:
    """Wakes the callers of jobs. Returns how many jobs had one."""
    waited = 0
    for job, outcome in done:
        if job.future is None:
            continue
        waited += 1
        if job.future.done():
            if outcome.error is None and job.on_abandoned is not None:
                job.on_abandoned(outcome.result)
        elif outcome.error is None:
            job.future.set_result(outcome.result)
        else:
            job.future.set_exception(outcome.error)
    return waited
