"""The plan: what to create, change and delete, so that the gateway is as documents say, with the difference of each member."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.cli.configuration.documents import Declared
from gateway.cli.configuration.kinds import KINDS, WORKFLOW, DocumentKind
from gateway.cli.configuration.problems import BadMember, DocumentProblem
from gateway.cli.configuration.references import STORED, resolve_secrets
from gateway.cli.exit_codes import CommandError, CommandFailed
from gateway.cli.http_client import GatewayClient
from gateway.cli.output import show_progress

NAMES_AT_ONCE: Final = 100
WAITING: Final = ("pending", "quarantined")
NOT_SHOWN: Final = "(secret)"  # shown in place of a value of `upstream` that may be one


@dataclass(frozen=True, slots=True)
class MemberChange:
    """The difference of one member. Secrets are not in it."""

    path: str
    before: Any
    after: Any

    def to_document(self) -> dict[str, Any]:
        return {"path": self.path, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What is to be done about one object. `action` is create, change, delete, none or problem.

    `body` is what is sent, with secrets; `version` the `updated` of the entry that the plan was made from.
    """

    action: str
    kind: DocumentKind
    name: str
    changes: tuple[MemberChange, ...] = ()
    problem: str = ""
    version: str = ""
    body: Mapping[str, Any] | None = None
    declared: Declared | None = None

    @property
    def title(self) -> str:
        return f"{self.kind.name} {self.name}"

    def to_document(self) -> dict[str, Any]:
        place = {} if self.declared is None else {"file": self.declared.file, "line": self.declared.lines.line}
        changes = [each.to_document() for each in self.changes]
        return {"kind": self.kind.name, "name": self.name, "action": self.action, "changes": changes, "problem": self.problem, **place}


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """`label`: of what is created. `prune`: what has the label and is not declared is deleted. `check`: upstreams of new ones are read."""

    label: str
    prune: bool = False
    take_over: bool = False
    check: bool = False


class Planner:
    """Makes the plan. Asks the gateway which changes a document makes, and changes nothing."""

    def __init__(self, remote: GatewayClient, options: PlanOptions) -> None:
        self._remote = remote
        self._options = options

    def plan(self, declared: Sequence[Declared]) -> list[PlannedStep]:
        """Returns the steps in the order in which they are taken: what others refer to is made first, and deleted last."""
        current = self._read_current([each.name for each in declared])
        steps = []
        for each in declared:
            with show_progress(f"comparing {each.title}…"):
                steps.append(self._plan_one(each, current.get(each.name)))
        return [*steps, *(self._plan_deletions({each.name for each in declared}) if self._options.prune else ())]

    def _read_current(self, names: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for at in range(0, len(names), NAMES_AT_ONCE):
            with show_progress("asking…"):
                found |= read_declarations(self._remote, name=names[at : at + NAMES_AT_ONCE])
        return found

    def _plan_one(self, declared: Declared, current: Mapping[str, Any] | None) -> PlannedStep:
        try:
            resolved = _resolve(declared)
            if current is None:
                return self._plan_creation(declared, resolved)
            self._check_is_ours(declared, current)
            return self._plan_change(declared, resolved, current)
        except BadMember as wrong:
            return _problem_step(declared, str(declared.problem_at(wrong.path, wrong.reason)))
        except CommandFailed as failed:
            return _problem_step(declared, str(locate_failure(declared, failed)))

    def _plan_creation(self, declared: Declared, resolved: Mapping[str, Any]) -> PlannedStep:
        kind = declared.kind
        shown = tuple(MemberChange(name, None, _mask(value)) for name, value in declared.spec.items() if name != "document")
        body = {
            "name": declared.name,
            "label": self._options.label,
            **{name: resolved[name] for name in declared.spec if resolved[name] is not None},
        }
        if kind is WORKFLOW:
            body = {"document": resolved["document"], "label": self._options.label}
        elif self._options.check and kind.is_described_by_upstream:
            self._remote.request("POST", f"{kind.path}/preview", body={name: each for name, each in body.items() if name != "label"})
        return PlannedStep("create", kind, declared.name, shown, body=body, declared=declared)

    def _check_is_ours(self, declared: Declared, current: Mapping[str, Any]) -> None:
        """Raises BadMember where the entry of this name is not for these documents to change."""
        if current["kind"] != declared.kind.name:
            raise BadMember("/name", f"is the name of a {current['kind']} at the gateway; all kinds share one namespace")
        if current["configured"]:
            raise BadMember("/name", "is set by interlock.yaml or the folder of workflows: change it there, or take it out there first")
        if not current["label"] and current["status"] == "pending" and not self._options.take_over:
            todo = f"{declared.kind.approve} {declared.name}, or remove it; --take-over declares it as it is"
            raise BadMember("/name", f"waits for an approval, and its registrant has its credentials: {todo}")

    def _plan_change(self, declared: Declared, resolved: Mapping[str, Any], current: Mapping[str, Any]) -> PlannedStep:
        kind, spec = declared.kind, current["spec"]
        differing = {name: value for name, value in resolved.items() if value != _comparable(name, value, spec)}
        for name in sorted(differing.keys() & kind.fixed):
            remove = f"{kind.approve.removesuffix('approve')}rm {declared.name}"
            raise BadMember(
                f"/spec/{name}", f"can't be changed: {remove}, then apply again; it is registered anew, with new credentials and approvals"
            )
        if "url" in differing and current["status"] in WAITING:
            raise BadMember(
                "/spec/url", f"can't be changed while {declared.name} is {current['status']}: {kind.approve} {declared.name}, or rm"
            )
        paths = self._ask_for_changes(declared, differing, current["version"])
        changes = tuple(_shown_change(path, spec, declared.spec, kind) for path in paths)
        others = current["label"] not in ("", self._options.label)
        if others and changes and not self._options.take_over:
            raise BadMember("/name", f"has the label {current['label']} of other documents: --label {current['label']}, or --take-over")
        label = self._options.label if self._options.take_over and current["label"] != self._options.label else None
        if label is not None:
            changes = (*changes, MemberChange("label", current["label"], label))
        body = {**differing, **({"label": label} if label is not None else {})}
        return PlannedStep("change" if changes else "none", kind, declared.name, changes, "", current["version"], body, declared)

    def _ask_for_changes(self, declared: Declared, differing: Mapping[str, Any], version: str) -> list[str]:
        """Returns the paths that differ by the gateway's own comparison, which knows the secrets and what values mean."""
        if not differing or declared.kind is WORKFLOW:
            return sorted(differing)
        answer = self._remote.request(
            "PATCH", declared.kind.path_of(declared.name), body=dict(differing), params={"dry_run": "true"}, match=version
        )
        return [str(each) for each in answer["changes"]]

    def _plan_deletions(self, declared: set[str]) -> Iterable[PlannedStep]:
        with show_progress("asking…"):
            labelled = read_declarations(self._remote, label=self._options.label)
        gone = [each for name, each in labelled.items() if name not in declared and not each["configured"]]
        for each in sorted(gone, key=lambda each: (-KINDS[each["kind"]].order, each["kind"], each["name"])):
            yield PlannedStep("delete", KINDS[each["kind"]], each["name"], version=each["version"])


def read_declarations(remote: GatewayClient, **query: Any) -> dict[str, dict[str, Any]]:
    """Returns what operators have set of the entries of the registry, by name."""
    return {each["name"]: each for page in remote.read_pages("/api/declarations", limit=200, **query) for each in page["items"]}


def locate_failure(declared: Declared, failed: CommandError) -> DocumentProblem:
    """Returns what the gateway said as a problem of a document, at the line of the member that it named."""
    field = str(failed.details.get("field") or "")
    path = "/spec/" + field.replace("[", "/").replace("]", "").replace(".", "/") if field else ""
    if failed.details.get("problems") and isinstance(inner := failed.details["problems"][0], dict):
        path = "/spec/document"
        return declared.problem_at(path, f"is refused: line {inner.get('line')} {inner.get('path')}: {inner.get('reason')}")
    return replace(declared.problem_at(path, failed.message.removeprefix(f"{field} ")), subject="")


def _resolve(declared: Declared) -> dict[str, Any]:
    """Returns the complete spec with the secrets that it refers to. Raises BadMember."""
    full = declared.kind.complete(declared.spec)
    if "upstream" in full:
        full["upstream"] = resolve_secrets(full["upstream"], declared.folder)
    return full


def _comparable(name: str, value: Any, spec: Mapping[str, Any]) -> Any:
    """Returns the member of the gateway to compare with. A server by its document has an address that the document names."""
    if name == "url" and not value and (spec.get("openapi") or spec.get("card")):
        return value
    return spec.get(name)


def _shown_change(path: str, before: Mapping[str, Any], after: Mapping[str, Any], kind: DocumentKind) -> MemberChange:
    """Returns a difference for people: without secrets, and of a workflow only that its text differs."""
    if path == "document":
        return MemberChange(path, *(f"{len(str(each.get(path)).splitlines())} lines" for each in (before, after)))
    steps = path.split(".")
    if steps[0] != "upstream":
        return MemberChange(path, before.get(path), after.get(path, kind.members.get(path)))
    return MemberChange(path, *(_mask(_value_at(each, steps)) for each in (before, after)))


def _value_at(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _mask(value: Any) -> Any:
    """Returns a value with what the gateway holds back as a secret in the words for people; references stay as they are."""
    if isinstance(value, Mapping):
        return {name: _mask(each) for name, each in value.items()}
    return NOT_SHOWN if value == STORED else value


def _problem_step(declared: Declared, problem: str) -> PlannedStep:
    return PlannedStep("problem", declared.kind, declared.name, problem=problem, declared=declared)
