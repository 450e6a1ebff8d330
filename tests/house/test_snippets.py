"""Programs that tests run from text name modules that exist."""

import pytest

from tests.house import snippets
from tests.house.source import Source, python

MADE_UP = {f"tests/house/test_{name}.py" for name in ("claims", "folders", "rights", "snippets")}  # modules of rules' examples


def test_every_module_that_a_program_in_a_string_names_exists() -> None:
    sources = [source for source in python("tests", "examples") if source.path not in MADE_UP]
    assert snippets.stale_modules(sources) == []


@pytest.mark.parametrize(
    "text",
    [
        'X = "import sys, pytest; import gateway.server.app, gateway.gone; print()"',
        'X = """\nimport sys\nfrom gateway.gone import Gone\n"""',
        'X = "try:\\n    from policies.gone.deep import Gone\\nfinally:\\n    pass"',
        'X = ["python", "-m", "gateway.gone"]',
        'X = "python -m registry.gone serve"',
    ],
)
def test_a_module_that_is_gone_is_found(text: str) -> None:
    (found,) = snippets.stale_modules([Source("tests/x.py", text)])
    assert found.startswith("tests/x.py:1: there is no module ") and ".gone" in found


def test_modules_that_exist_are_no_fault() -> None:
    text = 'X = ["import gateway.server.app", "-m", "gateway", "from adapters.contract import Call"]'
    assert snippets.stale_modules([Source("tests/x.py", text)]) == []


def test_strings_without_programs_are_no_proof() -> None:
    with pytest.raises(LookupError):
        snippets.stale_modules([Source("tests/x.py", 'X = "a word"')])
