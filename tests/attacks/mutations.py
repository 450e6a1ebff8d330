"""The table of mutations, mutations.toml: for each attack on authority, a guard that is taken away so that its tests have to fail."""

import ast
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

from tests.attacks.marks import Attack
from tests.house.source import PRODUCT

AREAS = frozenset({"token", "oauth", "delegation", "tenancy", "vault", "sandbox"})
# of other areas: what a caller may see, shared state, memory, budgets
MORE_ATTACKS = frozenset({"LOG-06", "BRD-01", "BRD-02", "INJ-07", "MEM-01", "CST-01"})


@dataclass(frozen=True, slots=True)
class Mutation:
    """`text` stands exactly once in `file`, which is a path below the root; `removes` says for readers what the gateway then lacks."""

    attack: str
    removes: str
    file: str
    text: str
    replacement: str

    def apply(self, root: Path) -> None:
        """Changes the file below `root`. Raises LookupError where the text is not there exactly once."""
        path = root / self.file
        changed = self.changed_text(root)
        path.unlink()  # it may be a link to the file of another tree
        path.write_text(changed, encoding="utf-8")
        # The compiled file could be taken for the new text's: size and second may be the same.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)

    def changed_text(self, root: Path) -> str:
        """The file as the mutation leaves it. Raises LookupError where the text is not there exactly once."""
        path = root / self.file
        if not path.is_file():
            raise LookupError(f"{self.attack}: {self.file} does not exist")
        source = path.read_text(encoding="utf-8")
        if (count := source.count(self.text)) != 1:
            raise LookupError(f"{self.attack}: {self.file} has {count} times, and not once: {self.text}")
        return source.replace(self.text, self.replacement)


def read_table(path: Path = Path(__file__).parent / "mutations.toml") -> tuple[Mutation, ...]:
    """Raises TypeError for a row that lacks a member or has another one."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    return tuple(Mutation(**row) for row in rows)


def find_problems(mutations: Sequence[Mutation], attacks: Collection[Attack], root: Path) -> list[str]:
    """What is wrong with the table: an attack without a row, a row of no such attack, a row that changes nothing or breaks its file."""
    expected = {attack.id for attack in attacks if (attack.area in AREAS or attack.id in MORE_ATTACKS) and not attack.not_yet}
    named = {mutation.attack for mutation in mutations}
    problems = [f"{attack}: has no mutation" for attack in sorted(expected - named)]
    problems += [f"{attack}: is no attack on authority that tests show" for attack in sorted(named - expected)]
    problems += [f"{each.attack}: stands twice: {each.text}" for each in mutations if mutations.count(each) > 1]
    return problems + [problem for each in mutations if (problem := _problem(each, root))]


def _problem(mutation: Mutation, root: Path) -> str:
    if mutation.file.partition("/")[0] not in PRODUCT:
        return f"{mutation.attack}: {mutation.file} is no file of the product"
    try:
        changed = ast.dump(ast.parse(mutation.changed_text(root)))
    except LookupError as error:
        return str(error)
    except SyntaxError as error:
        return f"{mutation.attack}: {mutation.file} is no Python any more, line {error.lineno}: {mutation.replacement}"
    same = changed == ast.dump(ast.parse((root / mutation.file).read_text(encoding="utf-8")))
    return f"{mutation.attack}: changes nothing in {mutation.file}: {mutation.text}" if same else ""
