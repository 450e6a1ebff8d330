"""Cedar policies as their JSON form, without an engine."""

import json
from typing import Any

import cedarpy

ANYTHING = "principal, action, resource"


def parsed(text: str) -> dict[str, Any]:
    """The one policy of a text."""
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    return dict(policy)


def when(condition: str, scope: str = ANYTHING) -> dict[str, Any]:
    """`permit(scope) when { condition };`"""
    return parsed(f"permit({scope}) when {{ {condition} }};")
