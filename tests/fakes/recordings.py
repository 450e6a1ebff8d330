"""Recorded exchanges with agents of other vendors, one JSON object a line."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "adapters" / "recordings"


def exchanges(name: str) -> list[dict[str, Any]]:
    """The lines of `vendor/scenario`."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


def every_exchange() -> list[tuple[str, dict[str, Any]]]:
    """All exchanges with the name of each, for parametrised tests."""
    names = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.jsonl"))
    return [(f"{name}:{exchange['seq']}", exchange) for name in names for exchange in exchanges(name)]
