"""Which facts about subjects policies need, so that rulings read no others."""

import json

import cedarpy
import pytest

from policies.cedar.fact_paths import fact_needs
from policies.delegation.facts import ALL_FACTS, FactNeeds


def needs_of(*conditions: str) -> FactNeeds:
    text = "\n".join(f"forbid(principal, action, resource) when {{ {condition} }};" for condition in conditions)
    return fact_needs(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values())


@pytest.mark.parametrize(
    ("condition", "needs"),
    [
        ("context.depth > 1", FactNeeds()),
        ('context.subject == "customer:42"', FactNeeds(subject=True)),
        ('context.effect == "mail" && context.facts.claimed_by_other', FactNeeds()),
        ('context.facts.holds.contains("a")', FactNeeds(holds=frozenset({"a"}))),
        ('context.facts.holds.containsAny(["a", "b"])', FactNeeds(holds=frozenset({"a", "b"}))),
        ('context["facts"]["holds"].contains("a")', FactNeeds(holds=frozenset({"a"}))),
        ("context.facts.opt_outs.contains(context.effect)", FactNeeds(opt_outs=None)),
        ('["a"].containsAll(context.facts.holds)', FactNeeds(holds=None)),
        ("context.facts.holds.isEmpty()", FactNeeds(holds=None)),
        ('context.facts.values has tier && context.facts.values.tier == "gold"', FactNeeds(values=frozenset({"tier"}))),
        ("context.facts.numbers has size && context.facts.numbers.size > 3", FactNeeds(values=frozenset({"size"}))),
        ("context.facts.values == {}", FactNeeds(values=None)),
        ("context.facts.since_agent has support", FactNeeds(last=True)),
        ("context has facts && context.facts has holds", FactNeeds()),
        ("context.facts == {}", ALL_FACTS),
        ('[context].contains({"a": 1})', ALL_FACTS),
        (
            'if context.facts.holds.contains("a") then context.facts.values has x else false',
            FactNeeds(frozenset("a"), values=frozenset("x")),
        ),
    ],
)
def test_a_policy_needs_what_it_names(condition: str, needs: FactNeeds) -> None:
    assert needs_of(condition) == needs


def test_policies_together_need_what_each_of_them_names() -> None:
    both = needs_of('context.facts.holds.contains("a")', 'context.facts.holds.contains("b") && context.facts.since_effect has x')
    assert both == FactNeeds(frozenset({"a", "b"}), last=True)
