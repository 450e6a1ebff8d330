"""The example agent plays the scenario that fits best."""

from tests.conformance.scenarios import COMPLETE, SCENARIOS, acts_for


def test_the_longest_prefix_decides() -> None:
    assert acts_for("tck-artifact-file-url-0f3a", COMPLETE) is SCENARIOS["tck-artifact-file-url"]
    assert acts_for("tck-artifact-file-0f3a", COMPLETE) is SCENARIOS["tck-artifact-file"]


def test_any_other_message_is_answered_as_the_agent_likes() -> None:
    assert acts_for("tck-unknown-0f3a", COMPLETE) is COMPLETE
