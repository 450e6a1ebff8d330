"""Explains why a policy could not be evaluated: the policy and the argument, in words for the caller and the policy's author."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.cedar.argument_types import Path
from policies.cedar.input_paths import WHOLE_INPUT, input_paths
from policies.cedar.question import Verdict
from policies.cedar.values import NotExpressible

PROBLEM_MAX = 500  # characters
UNEVALUABLE = "the policies can't be evaluated on this act"
_POLICY = "error while evaluating policy `"
_ABSENT = "does not have the attribute `"
_GOT = ", got "
Policies = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PolicyFailure:
    """`policies` has the @ids of the policies that failed; `problem` has one sentence without a full stop for each of them."""

    policies: tuple[str, ...]
    problem: str

    def to_verdict(self) -> Verdict:
        return Verdict(False, self.policies, has_error=True, problem=self.problem)


def failure_from_errors(errors: Sequence[str], policies: Policies, arguments: Any) -> PolicyFailure:
    """Explains Cedar's evaluation errors. `policies` are all evaluated ones by Cedar's ids; `arguments` are the Cedar values they read."""
    found: dict[str, str] = {}
    unfit = False
    for error in errors:
        key, _, message = error.removeprefix(_POLICY).partition("`: ")
        if error.startswith(_POLICY) and key in policies:
            found.setdefault(_policy_name(policies[key]), _problem_with_arguments(message, policies[key], arguments))
        else:
            unfit = True
    sentences = [*(f"{name}: {sentence}" for name, sentence in sorted(found.items())), *([UNEVALUABLE] if unfit else [])]
    return PolicyFailure(tuple(sorted(found)), "; ".join(sentences)[:PROBLEM_MAX])


def failure_of_inexpressible(error: NotExpressible, policies: Iterable[Mapping[str, Any]]) -> PolicyFailure:
    """Explains an argument that has no Cedar value. Names the policies that read it."""
    reading = sorted({_policy_name(policy) for policy in policies if any(_overlap(path, error.path) for path in input_paths(policy))})
    return PolicyFailure(tuple(reading), f"argument {_dotted_path(error.path)}: {error}"[:PROBLEM_MAX])


def _policy_name(policy: Mapping[str, Any]) -> str:
    return str(policy["annotations"]["id"])


def _problem_with_arguments(problem: str, policy: Mapping[str, Any], arguments: Any) -> str:
    """Cedar's error text, with the arguments that it can be about."""
    failing_paths = sorted(_dotted_path(path) for path in set(_failing_paths(problem, input_paths(policy), arguments)))
    return f"argument {', '.join(failing_paths)}: {problem}" if failing_paths else problem


def _failing_paths(problem: str, paths: Iterable[Path], arguments: Any) -> Iterator[Path]:
    """Yields the paths, among those a policy reads, that lack the attribute which Cedar names or have the type which Cedar met."""
    absent = problem.partition(_ABSENT)[2].partition("`")[0]
    met = problem.rpartition(_GOT)[2] if _GOT in problem else ""
    for path in paths:
        for length in range(1, len(path) + 1):
            value = _value_at(arguments, path[:length])
            if value is None:
                if path[length - 1] == absent:
                    yield path[:length]
                break
            if met and _cedar_type_of(value) == met and (length == len(path) or met != "record"):
                yield path[:length]
                break


def _value_at(arguments: Any, path: Path) -> Any:
    found = arguments
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _cedar_type_of(value: Any) -> str:
    """The type of a Cedar value, as Cedar names it in error texts."""
    match value:
        case bool():
            return "bool"
        case int():
            return "long"
        case str():
            return "string"
        case {"__extn": _}:
            return "decimal"
        case Mapping():
            return "record"
    return "set"


def _overlap(path: Path, other: Path) -> bool:
    """Whether one path is a prefix of the other."""
    return path == WHOLE_INPUT or all(one == two for one, two in zip(path, other, strict=False))


def _dotted_path(path: Path) -> str:
    return ".".join(path) or "list"
