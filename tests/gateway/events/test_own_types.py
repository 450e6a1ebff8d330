"""Which types are the gateway's own, and which patterns mean them."""

import pytest

from gateway.events.own_types import OWN_TYPES, TASK_ENDED, is_reserved, is_wanted, own_types_of
from gateway.tasks.notices.feed import CHECKPOINT_KINDS


@pytest.mark.parametrize(
    "kind", ["interlock", "interlock.task.ended.v1", "Interlock.x", "INTERLOCK/x", "interlock..x", "interlock:x", "interlock_x"]
)
def test_a_type_whose_first_word_is_the_gateways_is_reserved(kind: str) -> None:
    assert is_reserved(kind)


@pytest.mark.parametrize("kind", ["interlocking.x", "shop.interlock.x", "com.interlock", "x"])
def test_a_type_with_the_word_elsewhere_is_free(kind: str) -> None:
    assert not is_reserved(kind)


def test_a_pattern_for_everything_means_no_events_of_the_gateways_own() -> None:
    assert not is_wanted(["*", "inter*"], TASK_ENDED)
    assert is_wanted(["*"], "shop.paid") and is_wanted(["interlock.*"], TASK_ENDED) and is_wanted([TASK_ENDED], TASK_ENDED)


def test_patterns_name_the_gateways_own_types() -> None:
    assert own_types_of(["interlock.*", "shop.*"]) == OWN_TYPES
    assert own_types_of(["interlock.task.*"]) == {TASK_ENDED} and own_types_of(["*", "shop.x"]) == set()


def test_every_notice_of_a_checkpoint_has_a_type() -> None:
    assert {f"interlock.{kind}.v1" for kind in CHECKPOINT_KINDS} < OWN_TYPES
