"""Arguments become a request exactly as OpenAPI's table of styles says, and nothing in them becomes another request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from adapters.openapi.encoding import Operation, Parameter, encode_call, is_usable
from adapters.openapi.multipart import BadArguments

DEEP = "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150"
OURS = ["Authorization", "Host", "Cookie", "Content-Length", "Transfer-Encoding", "Proxy-X", "Interlock-Delegation", "a b"]
LIST, THING = ["blue", "black", "brown"], {"R": 100, "G": 200, "B": 150}
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
COLOR = {"oneOf": [TEXT, {"type": "array", "items": TEXT}, {"type": "object", "properties": dict.fromkeys("RGB", NUMBER)}]}


def url_of(place: str, value: Any, style: str, explode: bool) -> str:
    parameter = Parameter("color", "color", place, style=style, explode=explode)
    path = "/x/{color}" if place == "path" else "/x"
    called = encode_call(Operation("GET", path, (parameter,), schema={"properties": {"color": COLOR}}), {"color": value})
    return called.url if place in ("path", "query") else str(called.headers["color" if place == "header" else "cookie"])


@pytest.mark.parametrize(  # OpenAPI 3.1 s4.8.12.4
    ("place", "style", "explode", "plain", "listed", "thing"),
    [
        ("path", "matrix", False, ";color=blue", ";color=blue,black,brown", ";color=R,100,G,200,B,150"),
        ("path", "matrix", True, ";color=blue", ";color=blue;color=black;color=brown", ";R=100;G=200;B=150"),
        ("path", "label", False, ".blue", ".blue,black,brown", ".R,100,G,200,B,150"),
        ("path", "label", True, ".blue", ".blue.black.brown", ".R=100.G=200.B=150"),
        ("path", "simple", False, "blue", "blue,black,brown", "R,100,G,200,B,150"),
        ("path", "simple", True, "blue", "blue,black,brown", "R=100,G=200,B=150"),
        ("query", "form", False, "color=blue", "color=blue,black,brown", "color=R,100,G,200,B,150"),
        ("query", "form", True, "color=blue", "color=blue&color=black&color=brown", "R=100&G=200&B=150"),
        ("query", "spaceDelimited", False, "color=blue", "color=blue%20black%20brown", "color=R%20100%20G%20200%20B%20150"),
        ("query", "pipeDelimited", False, "color=blue", "color=blue%7Cblack%7Cbrown", "color=R%7C100%7CG%7C200%7CB%7C150"),
        (
            "query",
            "deepObject",
            True,
            "color=blue",
            "color=blue&color=black&color=brown",
            "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150",
        ),
        ("header", "simple", False, "blue", "blue,black,brown", "R,100,G,200,B,150"),
        ("header", "simple", True, "blue", "blue,black,brown", "R=100,G=200,B=150"),
    ],
)
def test_styles_are_those_of_the_table(place: str, style: str, explode: bool, plain: str, listed: str, thing: str) -> None:
    before = {"path": "/x/", "query": "/x?"}.get(place, "")
    assert [url_of(place, value, style, explode) for value in ("blue", LIST, THING)] == [before + each for each in (plain, listed, thing)]


@given(st.text(max_size=20))
def test_no_value_leaves_its_place(text: str) -> None:  # attack PRO-07
    path = Operation("GET", "/users/{id}/orders", (Parameter("id", "id", "path", True), Parameter("q", "q", "query")))
    try:
        called = encode_call(path, {"id": text, "q": text})
    except BadArguments:
        assert not text.strip(".")
        return
    assert called.url.startswith("/users/") and called.url.partition("?")[0].count("/") == 3
    parsed = URL("http://api.example" + called.url, encoded=True)
    assert len(parsed.raw_parts) == 4 and parsed.raw_parts[3] == "orders" and ".." not in parsed.raw_parts


@pytest.mark.parametrize("value", ["", ".", "..", "...", [], [""]])
def test_a_path_has_no_segment_that_means_another(value: Any) -> None:  # attack PRO-07
    with pytest.raises(BadArguments):
        encode_call(Operation("GET", "/users/{id}", (Parameter("id", "id", "path", True),)), {"id": value})


@pytest.mark.parametrize("value", ["a\r\nauthorization: x", "a\nb", "größe", "\x00"])
def test_a_header_is_one_line(value: str) -> None:  # attack PRO-01
    with pytest.raises(BadArguments):
        encode_call(Operation("GET", "/x", (Parameter("tag", "X-Tag", "header"),)), {"tag": value})


@pytest.mark.parametrize("name", OURS)
def test_no_argument_sets_a_header_of_ours(name: str) -> None:
    assert not is_usable(Parameter("x", name, "header"))
    assert is_usable(Parameter("x", "X-Request-Tag", "header"))


def test_bodies_are_of_their_media_type() -> None:
    form = {"properties": {"a": {}, "b": {"type": "array", "items": NUMBER}, "c": {"type": "boolean"}, "d": TEXT}}

    def body(media: str, value: Any) -> bytes | None:
        return encode_call(
            Operation("POST", "/x", body=media, body_argument="body", schema={"properties": {"body": form}}), {"body": value}
        ).body

    assert body("application/json", {"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()
    assert body("application/x-www-form-urlencoded", {"a": "x y", "b": [1, 2], "c": True, "d": None}) == b"a=x+y&b=1&b=2&c=true"
    form = TEXT
    assert body("text/plain", "hello") == b"hello"
    assert encode_call(Operation("POST", "/x", body="application/json", body_argument="body"), {}).body is None


def test_what_is_missing_or_unknown_is_told() -> None:
    operation = Operation("POST", "/x", (Parameter("a", "a", "query", True),), "application/json", "body", True)
    for arguments in ({"body": {}}, {"a": 1}, {"a": 1, "body": {}, "c": 2}):
        with pytest.raises(BadArguments):
            encode_call(operation, arguments)


def test_cookies_and_json_parameters() -> None:
    parameters = (Parameter("s", "sid", "cookie"), Parameter("f", "filter", "query", media="application/json"))
    called = encode_call(Operation("GET", "/x", parameters), {"s": "a;b", "f": {"a": 1}})
    assert called.headers == {"cookie": "sid=a%3Bb"} and called.url == "/x?filter=%7B%22a%22%3A1%7D"
