"""Own account and settings: who the gateway takes a person for, what they signed in with and connected, and what is in force."""

from gateway.ingress.console.api import api_path, gather
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.ingress.console.sign_in.sessions import session_id_of

ACCOUNT = "/console/account"
SOURCES = ("default", "file", "environment")


async def show_account(request: PageRequest) -> Page:
    """Reads the person, the clients and browsers that they signed in with, and the accounts that they connected."""
    paths = {"whoami": "/api/whoami", "sessions": "/api/sessions", "browsers": "/api/console/sessions", "connections": "/api/connections"}
    parts = await gather(*map(request.api.part, paths.values()))
    members = {**dict(zip(paths, parts, strict=True)), "this_browser": session_id_of(request.session.digest), "paths": paths}
    return Page("account.html", "Your account", "/api/whoami", ("interlock", "whoami"), members)


async def act_on_account(request: PageRequest) -> Elsewhere:
    """Ends a session, or removes a connected account. Raises ApiRefusal and FormRefused."""
    named = request.form.get("id", "")
    match request.form.get("act", ""):
        case "end" if named:
            await request.api.request("DELETE", api_path("sessions", named))
            return Elsewhere(ACCOUNT, "session-ended")
        case "sign-out" if named:
            await request.api.request("DELETE", api_path("console", "sessions", named))
            return Elsewhere(ACCOUNT, "browser-ended")
        case "disconnect" if named:
            await request.api.request("DELETE", api_path("connections", named))
            return Elsewhere(ACCOUNT, "disconnected")
    raise FormRefused("the form names no act")


async def show_settings(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    document = await request.api.get("/api/settings")
    wanted, words = request.query.get("source", ""), request.query.get("q", "").strip().lower()
    shown = [each for each in document["items"] if wanted in ("", each["source"]) and words in each["name"].lower()]
    members = {"settings": shown, "count": len(document["items"]), "filters": {"source": wanted, "q": words}, "sources": SOURCES}
    members["version"] = document["version"]
    return Page("settings.html", "Settings", "/api/settings", ("interlock", "settings"), members)
