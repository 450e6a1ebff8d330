"""What the guides quote from the examples is what the examples do."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"<!-- from (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def test_the_guide_for_agents_quotes_the_examples_word_by_word() -> None:
    quotes = QUOTED.findall((ROOT / "docs/agents.md").read_text())
    assert len(quotes) >= 2
    for path, code in quotes:
        assert code in (ROOT / path).read_text(), f"docs/agents.md quotes {path} otherwise than it is"


def test_the_guide_for_adapters_quotes_an_adapter_word_by_word() -> None:
    ((path, code),) = QUOTED.findall((ROOT / "docs/adapters.md").read_text())
    assert code in (ROOT / path).read_text(), f"docs/adapters.md quotes {path} otherwise than it is"
