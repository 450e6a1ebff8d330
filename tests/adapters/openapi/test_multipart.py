"""Files as arguments of HTTP operations, as a framework that nobody here wrote takes them in."""

import base64
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, File, Form, Request, UploadFile
from jsonschema import Draft202012Validator

from adapters.openapi.document import operation_of, read_api
from adapters.openapi.encoding import encode_call
from adapters.openapi.multipart import BadArguments, FormField, encode_form, is_media_type

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
PNG = b"\x89PNG\r\n--interlock\r\n"
SENT = {"filename": 'a"b\r\nX: y é.png', "media_type": "image/png", "data": base64.b64encode(PNG).decode()}


def uploads() -> FastAPI:
    app = FastAPI()

    @app.post("/upload", operation_id="upload")
    async def upload(
        title: Annotated[str, Form()], picture: Annotated[UploadFile, File()], more: list[UploadFile], tags: Annotated[list[str], Form()]
    ) -> dict[str, Any]:
        files = [{"name": one.filename, "type": one.content_type, "text": (await one.read()).decode("latin-1")} for one in (picture, *more)]
        return {"title": title, "files": files, "tags": tags}

    @app.put(
        "/raw",
        operation_id="raw",
        openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"format": "binary"}}}, "required": True}},
    )
    async def raw(request: Request) -> dict[str, Any]:
        return {"type": request.headers["content-type"], "text": (await request.body()).decode("latin-1")}

    return app


@pytest.fixture
def call() -> Call:
    app = uploads()
    tools = {tool["name"]: tool for tool in read_api(app.openapi()).tools}

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        tool = tools[name]
        Draft202012Validator(tool["inputSchema"]).validate(arguments)
        made = encode_call(operation_of(tool), arguments)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.test") as client:
            answer = await client.request(made.method, made.url, headers=made.headers, content=made.body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return call


async def test_a_form_with_files_is_taken_in(call: Call) -> None:
    body = {
        "title": "é & ü",
        "picture": SENT,
        "more": [{"text": "plain"}, {"text": "{}", "media_type": "application/json"}],
        "tags": ["a", "b"],
    }
    said = await call("upload", {"body": body})
    assert said["title"] == "é & ü" and said["tags"] == ["a", "b"]
    picture, plain, typed = said["files"]
    assert (picture["type"], picture["text"]) == ("image/png", PNG.decode("latin-1"))
    assert picture["name"].replace("%22", '"').replace("%0D%0A", "\r\n") == SENT["filename"]
    assert (plain["text"], plain["name"]) == ("plain", "file") and (typed["type"], typed["text"]) == ("application/json", "{}")


async def test_a_body_of_bytes_is_one_file(call: Call) -> None:
    assert await call("raw", {"body": {"data": SENT["data"]}}) == {"type": "application/octet-stream", "text": PNG.decode("latin-1")}


@pytest.mark.parametrize(
    "picture",
    [
        5,
        {},
        {"text": "a", "data": "YQ=="},
        {"data": "not base64"},
        {"text": "a", "path": "/etc/passwd"},
        {"text": "a", "media_type": "image/png\r\nX-Evil: 1"},
    ],
)
async def test_what_is_no_file_is_refused(picture: Any) -> None:
    tool = next(tool for tool in read_api(uploads().openapi()).tools if tool["name"] == "upload")
    with pytest.raises(BadArguments, match=r"body\.picture"):
        encode_call(operation_of(tool), {"body": {"title": "t", "picture": picture, "more": [], "tags": []}})


@pytest.mark.parametrize("file", [True, False])
def test_no_name_of_a_member_or_a_file_becomes_a_header(file: bool) -> None:
    name = 'a"; filename="b\r\nX-Evil: 1'
    made = encode_form("body", {name: {"text": "t", "filename": name} if file else "t"}, [FormField(name, file=file)], str)
    head = made.body.partition(b"\r\n\r\n")[0]
    assert b"X-Evil" in head and b"\r\nX-Evil" not in head and head.count(b'"') == (4 if file else 2)


def test_a_media_type_has_no_parameters_and_no_wildcards() -> None:
    assert is_media_type("application/vnd.api+json")
    assert not any(map(is_media_type, ("image/*", "text/plain; charset=utf-8", "text", "", "a/b\r\n", "*/*")))


@pytest.mark.parametrize(
    ("offered", "sent"),
    [
        (["multipart/form-data", "application/json"], "application/json"),
        (["application/x-www-form-urlencoded", "multipart/form-data"], "application/x-www-form-urlencoded"),
        (["application/xml", "text/plain"], "text/plain"),
        (["application/pdf"], "application/pdf"),
        (["*/*"], "application/octet-stream"),
        (["application/json; charset=utf-8"], "application/json"),
    ],
)
def test_the_body_is_sent_as_what_loses_least(offered: list[str], sent: str) -> None:
    operation = {"operationId": "op", "requestBody": {"required": True, "content": {media: {"schema": {}} for media in offered}}}
    (tool,) = read_api({"openapi": "3.1.0", "paths": {"/x": {"post": operation}}}).tools
    assert operation_of(tool).body == sent


def test_a_form_that_carries_files_counts_before_one_that_cannot() -> None:
    schema = {"properties": {"file": {"type": "string", "format": "binary"}}}
    media = {name: {"schema": schema} for name in ("application/x-www-form-urlencoded", "multipart/form-data")}
    document = {"openapi": "3.0.3", "paths": {"/x": {"post": {"operationId": "op", "requestBody": {"content": media}}}}}
    (tool,) = read_api(document).tools
    assert operation_of(tool).body == "multipart/form-data" and operation_of(tool).fields[0].file
