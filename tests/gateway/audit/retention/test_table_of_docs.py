"""docs/retention.md says of each table of the product how long its rows are kept."""

import importlib
import re

from gateway.storage.tables import metadata as gateway_tables
from policies.tables import metadata as policies_tables
from registry.tables import metadata as registry_tables
from tests.house.source import ROOT, product

ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", re.MULTILINE)


def test_every_table_has_a_row_that_says_how_long_it_is_kept() -> None:
    for source in product():
        if source.module.endswith(".tables"):
            importlib.import_module(source.module)
    tables = {name for metadata in (gateway_tables, policies_tables, registry_tables) for name in metadata.tables}
    section = (ROOT / "docs" / "retention.md").read_text().partition("## Tables")[2]
    assert len(tables) > 70 and sorted(ROW.findall(section)) == sorted(tables)
