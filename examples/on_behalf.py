"""Acting for the person who asked: an agent trades the token of its task for a token of its next call (RFC 8693)."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"

Credentials = Callable[[], tuple[str, str]]


class Refused(Exception):
    """The gateway, or the one behind it, said no. `decision_id` can be asked about with `interlock why`."""

    def __init__(self, reason: str, decision_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.decision_id = decision_id

    def as_data(self) -> dict[str, str]:
        return {"order": "refused", "reason": self.reason, "decision_id": self.decision_id}


def credentials_from(path: str) -> Credentials:
    """This agent's own client id and secret: of the environment, else of a file such as the answer to its registration.

    The file is read at each use, since an agent has to be up before it can be registered.
    """

    def read() -> tuple[str, str]:
        if "INTERLOCK_CLIENT_ID" in os.environ:
            return os.environ["INTERLOCK_CLIENT_ID"], os.environ["INTERLOCK_CLIENT_SECRET"]
        try:
            document = json.loads(Path(path).read_text())
            return document["client_id"], document["client_secret"]
        except (OSError, ValueError, KeyError) as error:
            raise Refused(f"this agent has no credentials of the gateway: {error}") from error

    return read


def bearer(headers: Mapping[str, str]) -> str:
    """The token that the gateway called this agent with: it stands for the person who asked. Raises Refused when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused("this agent was not called through the gateway: there is no token")
    return token


def find(value: Any, *names: str) -> str:
    """The first string called one of `names` anywhere in a JSON value; errors nest it at different depths."""
    if isinstance(value, Mapping):
        own = next((value[name] for name in names if isinstance(value.get(name), str)), "")
        return own or find(list(value.values()), *names)
    if isinstance(value, list):
        return next((found for item in value if (found := find(item, *names))), "")
    return ""


def refusal(error: Mapping[str, Any]) -> Refused:
    """Reads the error of a JSON-RPC answer, an OAuth answer or a problem document."""
    reason = find(error, "message", "error_description", "detail", "error")
    return Refused(reason or "refused without a reason", find(error, "decision_id", "decisionId"))


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway as an agent sees it."""

    url: str
    credentials: Credentials

    async def exchange(self, token: str, path: str, scope: str) -> str:
        """A token for one resource of the gateway (`/agents/…`, `/mcp/…`), with the rights of the person behind `token`.

        `token` is what this agent was called with; `scope` names all that the next call needs, and nothing more. Raises Refused.
        """
        form = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "resource": self.url + path,
            "scope": scope,
        }
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"{self.url}/oauth/token", data=form, auth=self.credentials())
        document = answer.json()
        if answer.status_code != httpx.codes.OK:
            raise refusal(document)
        return str(document["access_token"])
