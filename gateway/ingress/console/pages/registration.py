"""Registering agents and servers by forms: a preview of what would be made, and then the entry with what comes next."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.ingress.console.api import ApiRefusal
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.ingress.console.schema_forms import parse_json
from policies.authority import WRITE_REGISTRY

PREVIEW: Final = "preview"
SHOWN_AGAIN: Final = frozenset(
    {"name", "url", "card", "kind", "ceiling", "delegation", "options", "openapi", "header", "account"}
)  # not the credential, which no page repeats
PERSONAL: Final[Mapping[str, Any]] = {"account": "person", "auth": {}}
SERVICE: Final[Mapping[str, Any]] = {"auth": {"account": "service"}}


async def show_agent_form(request: PageRequest) -> Page:
    """Returns the empty form."""
    return _page(request, "agents", request.query)


async def register_agent(request: PageRequest) -> Page:
    """Shows what would be registered, or registers it and shows the secret, once. A refusal shows the form again with what to do."""
    form = request.form
    try:
        body = _agent_body(form)
        if form.get("act") == PREVIEW:
            return _page(request, "agents", form, preview=await request.api.request("POST", "/api/agents/preview", body))
        made = await request.api.request("POST", "/api/agents", body)
    except (ApiRefusal, FormRefused) as refusal:
        return _page(request, "agents", form, refusal=refusal)
    command = ("interlock", "agent", "show", made["name"])
    members = {"made": made, "may_approve": request.may(WRITE_REGISTRY)}
    return Page("registered.html", f"Agent {made['name']} is registered", f"/api/agents/{made['name']}", command, members)


async def show_server_form(request: PageRequest) -> Page:
    """Returns the empty form."""
    return _page(request, "servers", request.query)


async def register_server(request: PageRequest) -> Page | Elsewhere:
    """Shows what would be registered, or registers it. A refusal shows the form again with what to do."""
    form = request.form
    try:
        body = _server_body(form)
        if form.get("act") == PREVIEW:
            return _page(request, "servers", form, preview=await request.api.request("POST", "/api/servers/preview", body))
        made = await request.api.request("POST", "/api/servers", body)
    except (ApiRefusal, FormRefused) as refusal:
        return _page(request, "servers", form, refusal=refusal)
    return Elsewhere(f"/console/servers/{made['name']}", "registered")


def _page(
    request: PageRequest, family: str, form: Mapping[str, str], *, preview: Any = None, refusal: ApiRefusal | FormRefused | None = None
) -> Page:
    singular = family.removesuffix("s")
    problem: Mapping[str, Any] = {"detail": str(refusal)} if isinstance(refusal, FormRefused) else refusal.problem if refusal else {}
    members = {
        "family": family,
        "singular": singular,
        "form": {name: value for name, value in form.items() if name in SHOWN_AGAIN},
        "preview": preview,
        "problem": problem,
        "is_operator": request.may(WRITE_REGISTRY),
    }
    status = 200 if refusal is None else refusal.status if isinstance(refusal, ApiRefusal) else 422
    command = ("interlock", singular, "add", *(("URL",) if family == "agents" else ("NAME", "URL")))
    return Page(
        "register.html", f"Register {'an agent' if family == 'agents' else 'a server'}", f"/api/{family}", command, members, status=status
    )


def _agent_body(form: Mapping[str, str]) -> dict[str, Any]:
    """Returns the body of a registration, as /api takes it. Raises FormRefused."""
    card = form.get("card", "").strip()
    body: dict[str, Any] = {name: value for name in ("name", "kind") if (value := form.get(name, "").strip())}
    if card and not form.get("url", "").strip():
        body["card"] = parse_json(card, "the card")
    else:
        body["url"] = form.get("url", "").strip()
        body |= {"card": parse_json(card, "the card")} if card else {}
    delegation = form.get("delegation", "")
    return {**body, **_terms(form), **({"delegation": delegation} if delegation else {})}


def _server_body(form: Mapping[str, str]) -> dict[str, Any]:
    """Returns the body of a registration, as /api takes it. Raises FormRefused."""
    openapi = form.get("openapi", "").strip()
    body: dict[str, Any] = {"name": form.get("name", "").strip(), "url": form.get("url", "").strip()}
    if openapi:
        body["openapi"] = parse_json(openapi, "the OpenAPI document") if openapi.startswith("{") else openapi
    return {**body, **_terms(form)}


def _terms(form: Mapping[str, str]) -> dict[str, Any]:
    """Returns the ceiling and the upstream settings, where the form has some. Raises FormRefused."""
    terms: dict[str, Any] = {}
    if form.get("ceiling", "").strip():
        terms["ceiling"] = permissions_in(form["ceiling"])
    upstream: dict[str, Any] = {}
    if form.get("options", "").strip():
        found = parse_json(form["options"], "the options")
        if not isinstance(found, dict):
            raise FormRefused("the options are not a JSON object")
        upstream |= found
    if form.get("header", "").strip():
        headers = upstream.get("headers", {})
        if not isinstance(headers, dict):
            raise FormRefused("the headers of the options are not a JSON object")
        upstream["headers"] = {**headers, form["header"].strip(): form.get("credential", "")}
    elif form.get("credential"):
        raise FormRefused("the credential has no header: name the header that carries it, such as Authorization")
    upstream |= {"person": PERSONAL, "service": SERVICE}.get(form.get("account", ""), {})
    return {**terms, **({"upstream": upstream} if upstream else {})}


def permissions_in(text: str) -> list[str]:
    """Returns the permissions of a text, which are separated by line breaks, spaces or commas."""
    return text.replace(",", " ").split()
