"""An agent that writes to a customer whatever it is asked to: `42: Your ticket is resolved`. It knows nothing of other agents."""

import re
from collections.abc import Mapping

from starlette.types import ASGIApp

from examples.on_behalf import Gateway, Refused
from examples.serving import serve_agent
from examples.tours.answering import Answer, build_agent
from examples.tours.tools import call_tool

WANTED = re.compile(r"(\d{1,9}): (.{1,1000})", re.DOTALL)


class Mailer:
    """Sends one mail a message, with the rights of the person who asked."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def reply(self, text: str, headers: Mapping[str, str]) -> Answer:
        """Raises Refused with the gateway's reason."""
        wanted = WANTED.fullmatch(text.strip())
        if wanted is None:
            raise Refused("say to whom and what, for example: 42: Your ticket is resolved")
        sent = await call_tool(self._gateway, headers, "mail.send", {"customer_id": int(wanted[1]), "text": wanted[2]})
        return Answer(f"sent as {sent['mail']}")


def build(url: str, gateway: Gateway) -> ASGIApp:
    return build_agent(url, "Mailer", "Writes to customers.", Mailer(gateway).reply)


if __name__ == "__main__":
    serve_agent(__doc__ or "", build)
