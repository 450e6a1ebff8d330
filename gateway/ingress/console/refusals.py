"""What a page says about a request that could not be done."""

from collections.abc import Mapping
from typing import Any

from gateway.ingress.console.api import ApiRefusal
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import UnknownPage
from gateway.ingress.console.sign_in.links import PER_PERSON_MAX, LinkSpent
from gateway.ingress.http.error_bodies import problem
from gateway.ingress.http.errors import describe

SPENT_TEXT = (
    "This link was used already, is older than five minutes, "
    f"or gave way to {PER_PERSON_MAX} newer ones of yours. Print another one: interlock console"
)


def describe_failure(error: Exception) -> tuple[int, Mapping[str, Any]] | None:
    """Returns the status and the problem of an error, as /api has them; None for an unexpected one."""
    match error:
        case ApiRefusal():
            return error.status, error.problem
        case UnknownPage():
            return 404, {"title": "Not found", "detail": "There is no such page."}
        case FormRefused():
            return 403, {"title": "Refused", "detail": f"Nothing was changed: {error}."}
        case LinkSpent():
            return 403, {"title": "The link is spent", "detail": SPENT_TEXT}
    report = describe(error)
    return None if report.mapping.status == 500 else (report.mapping.status, problem(report))


def describe_in_words(error: Exception) -> str:
    """Returns what a person is told about an error."""
    failure = describe_failure(error)
    return str(failure[1].get("detail", "")) if failure else "The gateway failed; its log has more."
