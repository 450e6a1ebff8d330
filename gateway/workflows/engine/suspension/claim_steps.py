"""Tasks of one run that hold claims: takes them with the run's rights, looks at them before each effect, and releases them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

from gateway.calls.authorizer import CallRefused
from gateway.concurrency.background import run_in_background
from gateway.state.claims.claim import Claim
from gateway.state.claims.operations import BadClaim, ClaimOperations, ClaimOrder
from gateway.state.claims.problems import ClaimRefused, CoolingDown, TooManyClaims
from gateway.state.subjects.versions import read_subject_version
from gateway.storage.batch import Batch
from gateway.workflows.engine.steps import RunIdentity, StepCalls
from gateway.workflows.engine.suspension.run_claims import HELD, WAITING, KeptClaim, RunClaims
from gateway.workflows.engine.suspension.waits import WaitCollector
from gateway.workflows.interpreter.claims import claim_denied, claim_lost, task_of_claim
from gateway.workflows.interpreter.effects import RunSuspended, StepKey, WantedClaim
from gateway.workflows.interpreter.errors import WorkflowError, standard_error
from gateway.workflows.runs.store import RunStore, key_text

_HELD: ContextVar[tuple["_HeldClaim", ...]] = ContextVar("held_claims", default=())


class _HeldClaim:
    """A claim in the task that holds it. When it is lost, what goes on in the task is canceled."""

    def __init__(self, claim_id: str, token: int, timer: asyncio.Timeout, *, is_gone: bool) -> None:
        self.claim_id = claim_id
        self.token = token
        self.is_gone = is_gone  # released in an earlier turn, or lost
        self.is_lost = False
        self._timer = timer

    def lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._timer.reschedule(asyncio.get_running_loop().time())


class ClaimParts:
    """What takes and keeps claims of runs, in one process."""

    def __init__(self, store: RunStore, claims: RunClaims, operations: ClaimOperations, calls: StepCalls) -> None:
        self.store = store
        self.claims = claims
        self.operations = operations
        self.calls = calls


class ClaimSteps:
    """The claims of one run in one interpretation of its document."""

    def __init__(self, parts: ClaimParts, identity: RunIdentity, waits: WaitCollector) -> None:
        self._parts = parts
        self._claims = parts.claims
        self._identity = identity
        self._run = identity.run
        self._waits = waits
        self._states: dict[str, str] | None = None  # by the key of the task, as the turn found them
        self._entered: set[StepKey] = set()  # tasks that may hold a claim

    async def take(self, key: StepKey, wanted: WantedClaim, due: int) -> dict[str, Any]:
        """The claim as the journal has it. Until `due` (microseconds since 1970) the run waits where it is refused.

        Raises WorkflowError, and RunSuspended while the run waits.
        """
        try:
            claim = await self._take(key, wanted)
        except ClaimRefused as refused:
            if self._parts.store.now() < due:
                self._waits.add_moment(key, min(due, refused.claim.free_at), f"{key.pointer}: waits for {wanted.subject}: {refused}")
                raise RunSuspended from refused
            if wanted.wait:
                await self._claims.stop_waiting(self._run, key_text(key))
            raise claim_denied(str(refused), key.pointer, is_cooling=isinstance(refused, CoolingDown)) from refused
        return {"subject": claim.subject, "effect": claim.effect, "claim": claim.id, "token": claim.token}

    async def _take(self, key: StepKey, wanted: WantedClaim) -> Claim:
        """Raises ClaimRefused, after the run was entered as one that waits, WorkflowError, SignInNeeded and RightsEnded."""
        self._parts.calls.check_published(self._identity, key.pointer)
        caller = await self._parts.calls.caller(self._identity, key.pointer)
        seconds = (wanted.lease // 1000, wanted.cool_down // 1000)
        order = ClaimOrder(wanted.subject, wanted.effect, wanted.purpose, wanted.priority, *seconds)
        tenant = self._run.tenant
        version = await self._parts.store.database.read(lambda connection: read_subject_version(connection, tenant, wanted.subject))
        self._entered.add(key)
        taking = asyncio.ensure_future(self._parts.operations.take(caller, order))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:  # the run goes on without the task, and nothing else knows of the claim
            run_in_background(self._give_back(taking), "claim_not_released", run=self._run.id)
            raise
        except ClaimRefused:
            if wanted.wait:
                await self._claims.wait(KeptClaim(self._run, key_text(key), wanted.subject, version=version, state=WAITING))
            raise
        except CallRefused as error:
            decision = error.ruling.decision
            detail = f"{decision.act.permission}: refused ({decision.reason_id}); interlock why {decision.id}"
            raise WorkflowError(standard_error("authorization", detail, key.pointer).fault, decision.id) from error
        except BadClaim as error:
            raise standard_error("validation", str(error), key.pointer) from error
        except TooManyClaims as error:
            detail = "the person who started the run holds as many claims as allowed"
            raise standard_error("communication", detail, key.pointer, 429) from error

    async def _give_back(self, taking: "asyncio.Future[Claim]") -> None:
        """Releases a claim that was taken after its task was canceled."""
        with suppress(ClaimRefused, CallRefused, BadClaim, TooManyClaims):
            await self._claims.release_unkept(self._run, await taking)

    def keeping_write(self, key: StepKey, wanted: WantedClaim, taken: Mapping[str, Any]) -> Callable[[Batch], None]:
        """Stores that the task holds the claim, in the commit that journals it."""
        kept = KeptClaim(self._run, key_text(key), wanted.subject, taken["claim"], taken["token"], wanted.lease * 1000)
        return lambda batch: self._claims.keep(batch, kept)

    @asynccontextmanager
    async def hold(self, key: StepKey, taken: Mapping[str, Any], *, is_new: bool) -> AsyncIterator[None]:
        """Holds the claim while what is within goes on. Raises WorkflowError where it was lost, after what is within was canceled."""
        name = key_text(key)
        state = HELD if is_new else (await self._states_found()).get(name)
        if state is not None:
            self._entered.add(key)
        is_lost = False
        try:
            async with asyncio.timeout(None) as timer:
                held = _HeldClaim(taken["claim"], taken["token"], timer, is_gone=state != HELD)
                entered = _HELD.set((*_HELD.get(), held))
                stop_watching = self._claims.watch(self._run, name, held.lose)
                try:
                    yield
                finally:
                    stop_watching()
                    _HELD.reset(entered)
                    is_lost = held.is_lost
        except TimeoutError as error:
            if not is_lost:
                raise
            self._waits.drop(task_of_claim(key))
            await self._claims.mark_told(self._run, name)
            raise claim_lost(taken["subject"], taken["effect"], taken["token"], key.pointer) from error
        if state is not None and not await self._claims.release(self._run, name):
            raise claim_lost(taken["subject"], taken["effect"], taken["token"], key.pointer)

    async def wait_if_lost(self) -> None:
        """Called before an effect begins. Never returns in a task that has lost its claim: the end of that task cancels this effect."""
        for held in _HELD.get():
            if held.is_gone or not await self._claims.is_held(self._run.tenant, held.claim_id, held.token):
                held.lose()
                await asyncio.Event().wait()

    async def settle(self, key: StepKey) -> None:
        """Releases the claims of tasks at this place or within it."""
        for each in [each for each in self._entered if each.is_within(key)]:
            self._entered.discard(each)
            await self._claims.release(self._run, key_text(each))

    async def _states_found(self) -> dict[str, str]:
        if self._states is None:
            self._states = await self._claims.states_of(self._run)
        return self._states
