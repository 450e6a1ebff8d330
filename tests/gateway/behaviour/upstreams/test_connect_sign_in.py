"""The page where a person connects an account signs that person in, and tells nobody else what it is for."""

import httpx
import pytest

from tests.fakes.sign_in import request_in
from tests.gateway.behaviour.upstreams.test_connect import Place, address, onward
from tests.gateway.behaviour.upstreams.test_connect import place as place

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_the_page_signs_its_person_in_and_no_other(place: Place) -> None:  # attack VLT-01
    needed = await place.register()
    url = address(needed.json()["detail"])
    async with httpx.AsyncClient(headers={"origin": place.home.url}) as browser:
        for user, status in (("alice", 404), ("admin", 200)):
            page = await browser.get(url)
            assert 'name="token"' not in page.text
            form = {"request": request_in(page), "login": "development", "user": user}
            asked = await browser.post(f"{place.home.url}/oauth/consent", data=form)
            assert asked.status_code == status, asked.text
        sent = await browser.get(onward(asked))
        assert "Connected" in (await browser.get(sent.headers["location"])).text
    assert (await place.register()).status_code == 201
