from policies.permissions import Permissions


def test_names_count_whole() -> None:
    held = Permissions.of(["agent:sales-eu", "tool:inventory.check"])
    assert not held.touches("agent:sales")
    assert held.touches("agent:sales-eu") and held.touches("tool:inventory.*")
    assert not held.covers("tool:inventory.check/wipe")
    assert held.covers("agent:sales-eu/quote")
