"""Every attack on authority has a mutation, and every mutation still fits the file that it changes (`make attacks` runs them)."""

from tests.attacks.marks import read_catalogue
from tests.attacks.mutations import find_problems, read_table
from tests.house.source import ROOT


def test_every_attack_on_authority_has_a_mutation_that_fits() -> None:
    assert read_table()
    assert find_problems(read_table(), read_catalogue(), ROOT) == []
