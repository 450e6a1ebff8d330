"""The cases of the guide to conflicts hold for its rules."""

import re
from pathlib import Path

from policies.cedar.engine import DEFAULT_USER_PREFIX, PolicyEngine
from policies.what_if.cases import read_cases
from policies.what_if.rehearsal import build_authority, rehearse
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "conflicts.md").read_text()
ROLES = {"operator": ["*"], "member": ["agent:*", "tool:*"]}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_cases_of_the_guide_hold_for_its_rules(tmp_path: Path) -> None:
    (tmp_path / "conflicts.cedar").write_text(blocks("cedar")[0])
    cases = read_cases(blocks("yaml")[1], DEFAULT_USER_PREFIX, lambda _person: ())
    results = rehearse(build_authority(PolicyEngine(ROLES, tmp_path), ROLES), cases)
    assert len(results) == 2 and [problem for result in results for problem in result.problems] == []
