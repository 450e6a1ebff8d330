"""Features of the language that the specification's kit leaves out, each scenario a run in virtual time."""

import pytest

from tests.conformance.kit_workflow import OWN, scenarios
from tests.conformance.workflow_features import FeatureScenario, NotAsExpected, UnknownPhrase, read_feature, run_scenario

SCENARIOS = scenarios(OWN)
COVERED = {"a2a", "checkpoints", "events", "extensions", "fork", "mcp", "retry", "run", "timeout", "wait"}


@pytest.mark.parametrize("scenario", [each for _, each in SCENARIOS], ids=[f"{file}: {each.name}" for file, each in SCENARIOS])
async def test_a_scenario_comes_out_as_described(scenario: FeatureScenario) -> None:
    assert await run_scenario(scenario) > 0


def test_what_the_kit_leaves_out_has_features() -> None:
    assert {file for file, _ in SCENARIOS} >= COVERED


FEATURE = """
Feature: A feature
  Scenario: A scenario
    Given a workflow with definition:
    \"\"\"yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - one: {set: {x: 1}}
    - two: {set: {x: 2}}
    \"\"\"
    When the workflow is executed
    Then %s
"""


@pytest.mark.parametrize(
    "wrong",
    ["two should run first", "one should run last", "one should run after two", "one should not run", "one should run 2 times",
     "the workflow should fault", "the workflow should wait", "the run should take 1 second", "the document should be refused at '/do'",
     "the workflow output should have properties 'y'", "the workflow output should have a 'x' property containing 2 items"],
)  # fmt: skip
async def test_a_scenario_that_is_wrong_fails(wrong: str) -> None:
    (scenario,) = read_feature(FEATURE % wrong)
    with pytest.raises(NotAsExpected):
        await run_scenario(scenario)


async def test_an_unknown_phrase_is_no_success() -> None:
    (scenario,) = read_feature(FEATURE % "all is well")
    with pytest.raises(UnknownPhrase):
        await run_scenario(scenario)
