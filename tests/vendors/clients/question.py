"""What each client is asked, and the tool that its fake model calls."""

from collections.abc import Iterable
from typing import Final

QUESTION: Final = "How many of SKU-7 are in stock?"
ARGUMENTS: Final = {"sku": "SKU-7"}


def pick(names: Iterable[str]) -> str:
    """The tool's name as the framework tells it to its model. Raises LookupError where it has none."""
    offered = list(names)
    found = next((name for name in offered if name.endswith("inventory_check_stock")), None)
    if found is None:
        raise LookupError(f"the framework offers only {offered}")
    return found
