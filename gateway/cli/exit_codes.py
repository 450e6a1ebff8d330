"""How a command ends when it does not end well: an exit code, what happened, and what to do next."""


class CommandError(Exception):
    """Ends the command. `message` says what happened, `todo` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, todo: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo


class CommandFailed(CommandError):
    """It was tried and did not work."""


class WrongUsage(CommandError):
    """The command can't be carried out as it was written."""

    exit_code = 2


class CommandRefused(CommandError):
    """The gateway does not allow it, or does not know who is asking."""

    exit_code = 3


class GatewayUnreachable(CommandError):
    """Nobody answers at INTERLOCK_URL."""

    exit_code = 4
