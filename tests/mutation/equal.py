"""Changes that leave what policies/ promises as it is, with the reason; they are counted apart and not tried."""

from tests.mutation.mutants import Mutant

# (module, the changed line without the blanks around it, kind): why nobody could tell
EQUAL: dict[tuple[str, str, str], str] = {}


def reason(module: str, source: str, mutant: Mutant) -> str | None:
    return EQUAL.get((module, source.splitlines()[mutant.line - 1].strip(), mutant.kind))


def matched(module: str, source: str, found: list[Mutant]) -> set[tuple[str, str, str]]:
    """Keys of the table that are true of this module today."""
    lines = source.splitlines()
    return {key for each in found if (key := (module, lines[each.line - 1].strip(), each.kind)) in EQUAL}
