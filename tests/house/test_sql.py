"""SQL reads typed columns: no statement finds out what a row means from the spelling of a text."""

import pytest

from tests.house.source import Source, product
from tests.house.sql import queries, statements, text_matches

EXCEPTIONS: dict[str, str] = {  # path: why its SQL may look into a text
    "gateway/storage/migrations/versions/": "reads what older versions wrote",
}


def test_no_sql_of_the_product_looks_into_a_text() -> None:
    sources = [source for source in product() if not source.path.startswith(tuple(EXCEPTIONS))]
    assert sum(len(list(statements(source))) for source in sources) > 20, "no SQL to check"
    assert sum(map(queries, sources)) > 50, "no query to check"
    assert [place for source in sources for place in text_matches(source)] == []


@pytest.mark.parametrize(
    "code",
    [
        "tasks.c.vendor_ref.like('%' + name + '%')",
        "tasks.c.vendor_ref.contains(name)",
        "task_events.c.body.endswith('}')",
        """text("SELECT id FROM tasks WHERE vendor_ref LIKE '%a%'")""",
        """text("SELECT vendor_ref ->> 'a' FROM tasks")""",
        """text("SELECT json_extract(vendor_ref, '$.a') FROM tasks")""",
        """text("DELETE FROM tasks WHERE instr(vendor_ref, 'a') > 0")""",
    ],
)
def test_sql_that_looks_into_a_text_is_found(code: str) -> None:
    assert len(text_matches(Source("gateway/x.py", code))) == 1


@pytest.mark.parametrize("code", ["name.startswith('x')", "'I like it'", """text("SELECT id FROM tasks WHERE a < b")"""])
def test_what_is_no_sql_or_matches_no_text_is_left_alone(code: str) -> None:
    assert text_matches(Source("gateway/x.py", code)) == []
