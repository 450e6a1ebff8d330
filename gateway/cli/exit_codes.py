"""Errors of commands: an exit code, a message, and what to do next."""

from collections.abc import Mapping
from typing import Any


class CommandError(Exception):
    """Ends the command. `message` says what happened, `todo` what the person can do.

    `details` are members for programs: `code` (else that of the class), `decision_id`, `missing`, `field`, `problems`.
    """

    exit_code = 1
    code = "failed"

    def __init__(self, message: str, todo: str = "", *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo
        self.details = details or {}

    def as_document(self) -> dict[str, Any]:
        """The error as `--json` prints it."""
        told = {"code": self.code, "message": self.message, "todo": self.todo, "exit_code": self.exit_code}
        return {"error": {**told, **{name: value for name, value in self.details.items() if value}}}


class CommandFailed(CommandError):
    """The command was tried and failed."""


class BadConfiguration(CommandFailed):
    """Settings, policies, keys, home or database can't be used, and trying again does not help: EX_CONFIG of sysexits(3).

    The units do not restart the gateway after it.
    """

    exit_code = 78
    code = "bad-configuration"


class NothingFound(CommandFailed):
    """The gateway knows nothing of this name or id, or the caller may not see it."""

    code = "not-found"


class WrongUsage(CommandError):
    """The command can't be run as it was written."""

    exit_code = 2
    code = "wrong-usage"


class CommandRefused(CommandError):
    """The gateway refuses the request or does not accept the token."""

    exit_code = 3
    code = "refused"


class GatewayUnreachable(CommandError):
    """The gateway at INTERLOCK_URL does not answer."""

    exit_code = 4
    code = "not-reachable"
