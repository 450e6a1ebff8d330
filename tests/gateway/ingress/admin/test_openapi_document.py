"""/openapi.json tells bodies and who may call what; /docs shows it without a script and without a foreign host."""

import ast
import re
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest

from tests.fakes.house import House
from tests.house.source import product

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
METHODS = {"get", "post", "put", "patch", "delete"}


async def document(home: House) -> Any:
    return (await home.http.get("/openapi.json")).json()


def operations(described: Any) -> dict[str, Any]:
    """By METHOD /path."""
    return {f"{verb.upper()} {path}": one for path, item in described["paths"].items() for verb, one in item.items() if verb in METHODS}


def reading() -> dict[str, str]:
    """Names of routes that read a body themselves -> the model that it is read as."""
    found = {}
    for source in product():
        if not source.path.startswith("gateway/ingress/admin/"):
            continue
        for node in ast.walk(source.tree):
            text = ast.unparse(node) if isinstance(node, ast.AsyncFunctionDef) and node.decorator_list else ""
            model = re.search(r"read_(?:model|optional_model)\(request, (\w+)", text)
            if model and (name := re.search(r"name='(\w+)'", text)):
                found[name[1]] = model[1]
    return found


async def test_every_body_is_described_as_it_is_read(home: House) -> None:
    described, models = await document(home), reading()
    assert len(models) >= 12
    by_name = {one["summary"].lower().replace(" ", "_").replace("-", "_"): one for one in operations(described).values()}
    for name, model in models.items():
        schema = by_name[name]["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{model}"}, name
        assert described["components"]["schemas"][model]["properties"]


async def test_each_operation_says_who_may_call_it(home: House) -> None:
    for name, one in operations(await document(home)).items():
        public = any(each in name for each in ("/.well-known/", "/api/events/sources/", "/oauth/register", "/oauth/device"))
        ways = [{"client": []}] if "/oauth/" in name else [{"bearer": []}, {"dpop": []}, {"ticket": [], "client": []}]
        assert one["security"] == ([] if public else ways), name
        problem = one["responses"]["default"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"} and "422" not in one["responses"]


async def test_every_reference_leads_somewhere(home: House) -> None:
    described = await document(home)
    components = described["components"]
    wanted = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(described)))
    assert wanted and wanted <= components["schemas"].keys()
    used = {scheme for one in operations(described).values() for way in one["security"] for scheme in way}
    assert used == components["securitySchemes"].keys() == {"bearer", "dpop", "ticket", "client"}
    assert not {"ValidationError", "HTTPValidationError"} & components["schemas"].keys()
    for schema in components["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_problems_are_as_described(home: House) -> None:
    described = await document(home)
    validator = jsonschema.Draft202012Validator(described["components"]["schemas"]["Problem"])
    for path, status in (("/api/agents", 401), ("/api/agents/none", 404), ("/api/audit", 403), ("/api/tasks?limit=0", 422)):
        headers = {"authorization": f"Bearer {home.token('alice')}"} if status != 401 else {}
        answer = await home.http.get(path, headers=headers)
        assert answer.status_code == status
        validator.validate(answer.json())


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("href", "src", "action")]
        self.ids += [value or "" for name, value in attributes if name == "id"]


async def test_the_page_loads_nothing_from_anywhere(home: House) -> None:
    answer = await home.http.get("/docs")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy and "http" not in policy
    page = Page()
    page.feed(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert page.links and all(link == "/openapi.json" or link.removeprefix("#") in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    described = await document(home)
    for name in operations(described):
        assert f"<code>{name.replace('&', '&amp;')}</code>" in answer.text
