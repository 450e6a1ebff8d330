"""The `interlock` command as a person at the terminal runs it."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from examples.demo.programs import surroundings
from examples.demo.screen import Screen, StepFailed


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Runs it against one gateway; `home` is the INTERLOCK_HOME of that gateway."""

    home: Path
    url: str
    screen: Screen

    def output(self, *arguments: str, token: str = "", color: str = "") -> tuple[int, str]:
        """Its exit code, and its stdout or, when it failed, all that it said."""
        environment = {"INTERLOCK_HOME": str(self.home), "INTERLOCK_URL": self.url, "INTERLOCK_TOKEN": token}
        shown = {"COLUMNS": str(self.screen.console.width - 5), "FORCE_COLOR": color}
        ran = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=self.home,
            env=surroundings(**environment, **shown),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ran.returncode, ran.stdout if ran.returncode == 0 else ran.stdout + ran.stderr

    def show(self, *arguments: str, token: str = "", succeeds: bool = True) -> str:
        """Runs it on the screen; what it printed without spaces, as a narrow terminal breaks lines anywhere. Raises StepFailed."""
        code, output = self.output(*arguments, token=token, color="1")
        line = " ".join(["interlock", *(Path(a).name if a.startswith("/") else a for a in arguments)])
        self.screen.command(line, output)
        if (code == 0) != succeeds:
            raise StepFailed(f"{line} ended with {code}")
        return "".join(Text.from_ansi(output).plain.split())

    def token(self, user: str) -> str:
        """A token of the development issuer. Raises StepFailed."""
        code, output = self.output("token", "--user", user)
        if code:
            raise StepFailed(f"no token for {user}: {output}")
        return output.strip()
