"""Errors of commands: an exit code, a message, and what to do next."""


class CommandError(Exception):
    """Ends the command. `message` says what happened, `todo` what the person can do."""

    exit_code = 1

    def __init__(self, message: str, todo: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo


class CommandFailed(CommandError):
    """The command was tried and failed."""


class NothingFound(CommandFailed):
    """The gateway knows nothing of this name or id, or the caller may not see it."""


class WrongUsage(CommandError):
    """The command can't be run as it was written."""

    exit_code = 2


class CommandRefused(CommandError):
    """The gateway refuses the request or does not accept the token."""

    exit_code = 3


class GatewayUnreachable(CommandError):
    """The gateway at INTERLOCK_URL does not answer."""

    exit_code = 4
