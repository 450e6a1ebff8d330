"""People read and change the board over /api: versions are ETags, and each act is ruled on and recorded."""

import pytest

from tests.fakes.board import KEY, BoardHome

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_a_value_is_set_read_patched_and_deleted_by_version(board: BoardHome) -> None:
    created = await board.put(KEY, {"state": "open", "note": "x"})
    assert (created.status_code, created.headers["etag"], created.json()["version"]) == (201, '"1"', 1)
    patched = await board.ask("PATCH", f"/{KEY}", body={"note": None, "by": "ann"}, if_match='"1"')
    assert (patched.status_code, patched.headers["etag"], patched.json()["value"]) == (200, '"2"', {"state": "open", "by": "ann"})
    read = await board.ask("GET", f"/{KEY}")
    assert (read.headers["etag"], read.json()["value"]["by"]) == ('"2"', "ann")
    assert (await board.ask("GET", f"/{KEY}", if_none_match='"2"')).status_code == 304
    gone = await board.ask("DELETE", f"/{KEY}", if_match='"2"')
    assert (gone.status_code, gone.json()["version"]) == (200, 3)
    missing = await board.ask("GET", f"/{KEY}")
    assert (missing.status_code, missing.json()["reason_id"]) == (404, "unknown")


@sqlite_only
async def test_stale_is_412_and_a_missing_precondition_428(board: BoardHome) -> None:
    await board.put(KEY, "open")
    for headers, status, reason in (
        ({}, 428, "version-required"),
        ({"if_match": '"2"'}, 412, "stale-version"),
        ({"if_match": 'W/"1"'}, 412, "stale-version"),
        ({"if_match": '"one"'}, 412, "stale-version"),
        ({"if_none_match": "*"}, 412, "stale-version"),
        ({"if_match": "1"}, 400, "bad-header"),
        ({"if_none_match": '"1"'}, 400, "bad-header"),
    ):
        for method in ("PUT", "PATCH", "DELETE"):
            refused = await board.ask(method, f"/{KEY}", body=None if method == "DELETE" else {"a": 1}, **headers)
            assert (refused.status_code, refused.json()["reason_id"]) == (status, reason), (method, headers)
    assert (await board.value(KEY))["version"] == 1
    assert (await board.put(KEY, "closed", if_match='"7", "1"')).status_code == 200
    assert (await board.put(KEY, "again", if_match="*")).json()["version"] == 3


async def test_the_history_says_who_set_what(board: BoardHome) -> None:
    await board.put(KEY, "open")
    await board.put(KEY, "closed", if_match='"1"')
    await board.ask("DELETE", f"/{KEY}", if_match="*")
    items = (await board.ask("GET", f"/{KEY}?history&limit=2")).json()
    assert [(each["version"], each["kind"], each.get("value")) for each in items["items"]] == [(3, "deleted", None), (2, "set", "closed")]
    assert items["items"][1]["source"]["principal"].endswith("|ann")
    older = (await board.ask("GET", f"/{KEY}?history&cursor={items['next']}")).json()
    assert [each["version"] for each in older["items"]] == [1] and older["next"] is None


async def test_each_read_and_each_write_is_a_recorded_decision(board: BoardHome) -> None:
    await board.put(KEY, "open")
    await board.value(KEY)
    await board.put(KEY, "closed", "rita", if_match='"1"')
    await board.ask("GET", "/customer/42?history")
    assert await board.permissions_ruled_on() == [
        ("state:read:customer/42", True),
        (f"state:write:{KEY}", False),
        (f"state:read:{KEY}", True),
        (f"state:write:{KEY}", True),
    ]


@sqlite_only
async def test_a_refusal_of_the_board_still_leaves_its_decision(board: BoardHome) -> None:
    await board.put(KEY, "open")
    assert (await board.put(KEY, "closed", if_match='"9"')).status_code == 412
    assert (await board.permissions_ruled_on()).count((f"state:write:{KEY}", True)) == 2


@sqlite_only
async def test_a_list_shows_what_the_caller_could_read(board: BoardHome) -> None:
    for key in (KEY, "customer/42/owner", "customer/4/status", "customer/43/status"):
        await board.put(key, key, "admin")
    listed = (await board.ask("GET", "?prefix=customer/42&limit=1")).json()
    assert [each["key"] for each in listed["items"]] == ["customer/42/owner"] and "value" not in listed["items"][0]
    following = (await board.ask("GET", f"?prefix=customer/42&cursor={listed['next']}")).json()
    assert [each["key"] for each in following["items"]] == [KEY] and following["next"] is None
    assert [each["key"] for each in (await board.ask("GET", "")).json()["items"]] == ["customer/42/owner", KEY]
    assert [each["key"] for each in (await board.ask("GET", "?prefix=customer/4", "fay")).json()["items"]] == ["customer/4/status"]
    assert (await board.ask("GET", "?prefix=customer/42&values=true")).json()["items"][1]["value"] == KEY
    assert (await board.ask("GET", "?values=true")).status_code == 403
    for cursor in ("a%20b", "../x", "é"):
        assert (await board.ask("GET", f"?cursor={cursor}")).json()["reason_id"] == "bad-cursor"


@sqlite_only
async def test_a_value_lives_as_long_as_it_was_asked_to(board: BoardHome) -> None:
    assert (await board.ask("PUT", f"/{KEY}?ttl=1000", body=1)).json()["expires"] is not None
    assert (await board.ask("PATCH", f"/{KEY}", body={"a": 1}, if_match="*")).json()["expires"] is not None
    assert (await board.put(KEY, 1, if_match="*")).json()["expires"] is None


@sqlite_only
async def test_values_and_patches_are_bounded(board: BoardHome) -> None:
    large = await board.put(KEY, "x" * (1 << 20))
    assert (large.status_code, large.json()["reason_id"]) == (413, "value-too-large")
    deep: dict[str, object] = {}
    for _ in range(40):
        deep = {"a": deep}
    assert (await board.ask("PATCH", f"/{KEY}", body=deep)).status_code == 413
    wide = await board.ask("PATCH", f"/{KEY}", body={str(number): 1 for number in range(10_001)})
    assert (wide.status_code, wide.json()["reason_id"]) == (413, "value-too-large")
    assert (await board.ask("GET", f"/{KEY}")).status_code == 404
