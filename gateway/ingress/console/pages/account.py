"""Own account and settings: who the gateway takes a person for, what they signed in with and connected, and what is in force."""

from gateway.ingress.console.api import api_path, gather
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest

ACCOUNT = "/console/account"
SOURCES = ("default", "file", "environment")


async def show_account(request: PageRequest) -> Page:
    """Reads the person, the clients that they signed in with, and the accounts that they connected."""
    me, sessions, connections = await gather(
        request.api.part("/api/whoami"), request.api.part("/api/sessions"), request.api.part("/api/connections")
    )
    members = {"whoami": me, "sessions": sessions, "connections": connections}
    return Page("account.html", "Your account", "/api/whoami", ("interlock", "whoami"), members)


async def act_on_account(request: PageRequest) -> Elsewhere:
    """Ends a session, or removes a connected account. Raises ApiRefusal and FormRefused."""
    named = request.form.get("id", "")
    match request.form.get("act", ""):
        case "end" if named:
            await request.api.request("DELETE", api_path("sessions", named))
            return Elsewhere(ACCOUNT, "session-ended")
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
