"""What the guides quote from the examples is what the examples do."""

import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"<!-- from (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def test_the_guide_for_agents_quotes_the_examples_word_by_word() -> None:
    quotes = QUOTED.findall((ROOT / "docs/agents.md").read_text())
    assert len(quotes) >= 2
    for path, code in quotes:
        assert code in (ROOT / path).read_text(), f"docs/agents.md quotes {path} otherwise than it is"


def test_the_guide_for_adapters_quotes_the_example_word_by_word() -> None:
    quotes = QUOTED.findall((ROOT / "docs/adapters.md").read_text())
    assert len(quotes) == 2
    for path, code in quotes:
        assert code in (ROOT / path).read_text(), f"docs/adapters.md quotes {path} otherwise than it is"


def test_the_modules_that_the_guide_for_adapters_names_have_what_it_says() -> None:
    rows = re.findall(r"(?m)^\| ((?:`adapters\.[\w.]+`(?:, )?)+) \| (.+) \|$", (ROOT / "docs/adapters.md").read_text())
    assert len(rows) >= 6
    for modules, names in rows:
        found = [import_module(module) for module in re.findall(r"`([\w.]+)`", modules)]
        missing = [name for name in re.findall(r"`([A-Za-z]\w+)`", names) if not any(hasattr(module, name) for module in found)]
        assert missing == [], f"{modules} has no {missing}"


def test_commands_of_the_guides_work_where_the_address_of_the_gateway_is_not_set() -> None:
    uses = {path: re.findall(r"\$\{?INTERLOCK_URL[^/ ]*", path.read_text()) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
    assert sum(map(len, uses.values())) >= 2
    for path, found in uses.items():
        assert all(use.startswith("${INTERLOCK_URL:-http") for use in found), f"{path.name} uses a variable that no reader has set"
