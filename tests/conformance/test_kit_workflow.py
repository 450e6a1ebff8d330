"""The workflow kit: where it is looked for, that a failure counts, and what the page says."""

from pathlib import Path

import pytest

from tests.conformance.kit import KitMissing
from tests.conformance.kit_workflow import FEATURES, REPOSITORY, VARIABLE, ScenarioResult, failed, find, own_scenarios, results
from tests.conformance.papers_workflow import document, own_page, page, table
from tests.house.source import ROOT

FEATURE = """
Feature: Call
  Scenario: A pet is found
    Given a workflow with definition:
    \"\"\"yaml
    document: {dsl: '1.0.3', namespace: default, name: pets, version: '1.0.0'}
    do:
    - find:
        call: http
        with: {method: get, endpoint: {uri: 'https://petstore.swagger.io/v2/pet/{petId}'}, output: response}
    \"\"\"
    And given the workflow input is:
    \"\"\"yaml
    petId: 4
    \"\"\"
    When the workflow is executed
    Then the workflow should complete
    And the workflow output should have a 'content.id' property with value:
    \"\"\"yaml
    4
    \"\"\"

  Scenario: Another output
    Given a workflow with definition:
    \"\"\"yaml
    document: {dsl: '1.0.3', namespace: default, name: pets, version: '1.0.0'}
    do:
    - say: {set: {x: 1}}
    \"\"\"
    When the workflow is executed
    Then the workflow should complete with output:
    \"\"\"yaml
    x: 2
    \"\"\"
"""


def test_without_the_kit_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitMissing, match=f"check out {REPOSITORY} there, or set {VARIABLE}"):
        find({VARIABLE: str(tmp_path)})


async def test_each_scenario_of_the_kit_has_a_result(tmp_path: Path) -> None:
    folder = tmp_path / FEATURES
    folder.mkdir(parents=True)
    (folder / "call.feature").write_text(FEATURE)
    found = await results(find({VARIABLE: str(tmp_path)}))
    assert [one.id for one in found] == ["call: A pet is found", "call: Another output"]
    assert [one.id for one in failed(found)] == ["call: Another output"]
    assert "the output is {'x': 1}" in found[1].why


FOUND = [ScenarioResult("set", "Set Task", ""), ScenarioResult("for", "For Task", "NotAsExpected: the output is 1")]


def test_the_figures_name_what_failed() -> None:
    assert document(FOUND) == {"workflow": {"passed": 1, "failed": ["for: For Task"]}}
    assert table(FOUND).splitlines() == ["workflow kit 1/2 scenarios", "FAILED for: For Task: NotAsExpected: the output is 1"]
    assert "| for | For Task | **no** |" in page(FOUND, {"Wait": ["A duration"]})


def test_the_page_lists_the_features_of_this_repository() -> None:
    own = own_scenarios()
    assert own
    assert own_page(own) in (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
