"""Attacks that end before any row is touched are tried on SQLite; here one of each kind is tried on Postgres too."""

import pytest

from tests.fakes.house import House
from tests.gateway.behaviour.delegated_tasks import test_downgrades as downgrades
from tests.gateway.behaviour.operation import test_strange_requests as strange
from tests.gateway.behaviour.tools import test_mcp_server as door
from tests.gateway.ingress.admin import test_route_guards as surface

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


def is_postgres(home: House) -> bool:
    return home.gateway.settings.database_url.startswith("postgresql")


async def test_no_header_is_made_from_what_a_stranger_wrote(open_home: House) -> None:  # attack PRO-01
    await strange.test_no_header_is_made_from_what_a_stranger_wrote(open_home)
    assert is_postgres(open_home)


async def test_a_host_that_is_not_ours_is_misdirected(open_home: House) -> None:  # attack PRO-02, PRO-10
    await strange.test_a_host_that_is_not_ours_is_misdirected(open_home)
    assert is_postgres(open_home)


async def test_odd_lengths_and_paths_lead_nowhere(open_home: House) -> None:  # attack PRO-04, PRO-07
    await strange.test_a_length_that_lies_is_not_believed(open_home)
    await strange.test_odd_paths_lead_nowhere_or_to_the_same_questions(open_home)
    assert is_postgres(open_home)


async def test_headers_must_say_what_the_body_says(home: House) -> None:  # attack PRO-05
    await door.test_headers_must_say_what_the_body_says(home)
    assert is_postgres(home)


async def test_no_older_way_in_goes_without_a_good_token(home: House) -> None:  # attack PRO-13
    await downgrades.test_pro_13_no_way_in_goes_without_a_good_token(home)
    assert is_postgres(home)


async def test_nobody_administers_without_a_right(home: House) -> None:  # attack ADM-01
    await surface.test_nobody_administers_without_a_right(home)
    assert is_postgres(home)
