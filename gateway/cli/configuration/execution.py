"""Carries out a plan, one object after the other: each has a result of its own, and none is half done."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.cli.configuration.kinds import AGENT, WORKFLOW
from gateway.cli.configuration.plan import PlannedStep, locate_failure
from gateway.cli.exit_codes import CommandError, GatewayUnreachable
from gateway.cli.http_client import GatewayClient
from gateway.cli.output import show_progress

DONE, FAILED, SKIPPED, UNCHANGED = "done", "failed", "skipped", "unchanged"
VERBS: Final = {"create": "creating", "change": "changing", "delete": "deleting"}
CHANGED_MEANWHILE: Final = "was changed since the plan was made: run the command again"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of one step. `status` is that of the entry afterwards; `client_secret` that of a new agent, which is shown once."""

    step: PlannedStep
    outcome: str
    problem: str = ""
    status: str = ""
    client_secret: str = ""

    def to_document(self) -> dict[str, Any]:
        more = {"client_secret": self.client_secret} if self.client_secret else {}
        return {**self.step.to_document(), "outcome": self.outcome, "problem": self.problem, "status": self.status, **more}


class PlanExecution:
    """Applies steps. After a failure it goes on with the others, unless `stop` is set, but deletes nothing: what failed may replace it."""

    def __init__(self, remote: GatewayClient, *, stop: bool, report: Callable[[StepResult], None]) -> None:
        self._remote = remote
        self._stop = stop
        self._report = report
        self._results: list[StepResult] = []
        self.lost_gateway: GatewayUnreachable | None = None

    def run(self, steps: Sequence[PlannedStep]) -> list[StepResult]:
        """Returns the result of each step; every one is reported as soon as it is known."""
        rounds = [step for step in steps if step.kind is WORKFLOW and step.action in ("create", "change")]
        before = [step for step in steps if step not in rounds and step.action != "delete"]
        self._run_each(before)
        self._run_workflows(rounds)
        self._run_each([step for step in steps if step.action == "delete"])
        return self._results

    def _run_each(self, steps: Iterable[PlannedStep]) -> None:
        for step in steps:
            self._note(self._try(step))

    def _run_workflows(self, steps: list[PlannedStep]) -> None:
        """Tries workflows until no more of them can be published: one may call another that comes later."""
        while steps:
            tried = [(step, self._try(step)) for step in steps]
            failed = [step for step, result in tried if result.outcome == FAILED]
            is_last = len(failed) == len(steps)
            for _, result in tried:
                if is_last or result.outcome != FAILED:
                    self._note(result)
            steps = [] if is_last else failed

    def _note(self, result: StepResult) -> None:
        self._results.append(result)
        self._report(result)

    def _try(self, step: PlannedStep) -> StepResult:
        if step.action == "none":
            return StepResult(step, UNCHANGED)
        if self.lost_gateway is not None:
            return StepResult(step, SKIPPED, "the gateway is not reachable")
        if (self._stop or step.action == "delete") and any(each.outcome == FAILED for each in self._results):
            return StepResult(step, SKIPPED, "an earlier one failed" + (", so nothing is deleted" if step.action == "delete" else ""))
        if step.action == "problem":
            return StepResult(step, FAILED, step.problem)
        try:
            with show_progress(f"{VERBS[step.action]} {step.title}…"):
                return self._send(step)
        except GatewayUnreachable as lost:
            self.lost_gateway = lost
            return StepResult(step, FAILED, lost.message)
        except CommandError as error:
            return StepResult(step, FAILED, self._explain(step, error))

    def _explain(self, step: PlannedStep, error: CommandError) -> str:
        if error.details.get("code") in ("precondition-failed", "outdated"):
            return f"{step.title} {CHANGED_MEANWHILE}"
        if step.declared is None:
            return " ".join(part for part in (error.message, error.todo) if part)
        return str(locate_failure(step.declared, error))

    def _send(self, step: PlannedStep) -> StepResult:
        kind, version = step.kind, step.version or None
        if step.action == "delete":
            self._remote.request("DELETE", kind.path_of(step.name), match=version)
            return StepResult(step, DONE)
        if kind is WORKFLOW:
            return self._send_workflow(step)
        if step.action == "create":
            made = self._remote.request("POST", kind.path, body=step.body)
            secret = str(made.get("client_secret") or "") if kind is AGENT else ""
            return StepResult(step, DONE, status=str(made.get("status", "")), client_secret=secret)
        changed = self._remote.request("PATCH", kind.path_of(step.name), body=step.body, match=version)
        return StepResult(step, DONE, status=str(changed.get("status", "")))

    def _send_workflow(self, step: PlannedStep) -> StepResult:
        """Publishes the text where it differs, then pauses or resumes the schedule where the document says so."""
        body = dict(step.body or {})
        if body.keys() & {"document", "label"} and step.declared is not None:
            sent = {"document": step.declared.spec["document"], **({"label": body["label"]} if "label" in body else {})}
            self._remote.request("POST", step.kind.path, body=sent, match=step.version or None)
        paused = step.declared.spec.get("paused") if step.declared is not None else None
        if paused is not None and (step.action == "create" or "paused" in body):
            self._remote.request("POST", f"/api/triggers/{step.name}/{'pause' if paused else 'resume'}")
        return StepResult(step, DONE, status="active")
