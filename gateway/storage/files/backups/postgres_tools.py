"""Runs pg_dump and pg_restore, PostgreSQL's own programs, on the database of the gateway."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url

from gateway.storage.files.backups.archive import BackupUnusable, Report

TODO_INSTALL: Final = (
    "install PostgreSQL's client programs, at least of the server's major version, such as: apt-get install postgresql-client"
)
TODO_ACCESS: Final = "is the database reachable, and may this user read and write it?"
PROBLEM_LINES: Final = 20  # of what a program prints before it fails
_DUMPED = re.compile(r"dumping contents of table|processing data for table")


@dataclass(frozen=True, slots=True)
class PostgresTools:
    """The programs, found by the PATH of `environment`."""

    url: str
    environment: Mapping[str, str]

    def dump(self, snapshot: str, tables: Sequence[str], target: Path, report: Report) -> None:
        """Writes the tables as an exported snapshot sees them, in PostgreSQL's own compressed format. Raises BackupUnusable."""
        chosen = [f"--table={name}" for name in tables]
        options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", f"--file={target}", *chosen]
        self._run("pg_dump", options, len(tables), report)

    def restore(self, source: Path, tables: int, report: Report) -> None:
        """Restores all tables in one transaction. Raises BackupUnusable, and has changed nothing then."""
        options = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", str(source)]
        self._run("pg_restore", options, tables, report)

    def find(self, program: str) -> str:
        """Returns the path of a program. Raises BackupUnusable where it is not installed."""
        found = shutil.which(program, path=self.environment.get("PATH", ""))
        if found is None:
            raise BackupUnusable(f"{program} was not found", TODO_INSTALL)
        return found

    def _run(self, program: str, options: Sequence[str], tables: int, report: Report) -> None:
        url = make_url(self.url)
        command = [self.find(program), "--verbose", f"--dbname={_without_password(url)}", "--no-password", *options]
        secrets = {"PGPASSWORD": url.password} if url.password else {}  # not in the command, which other users can see
        environment = {**self.environment, **{name: str(value) for name, value in secrets.items()}, "LC_ALL": "C"}
        seen, done = list[str](), 0
        with subprocess.Popen(  # noqa: S603 (PostgreSQL's own program, without a shell)
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stderr or ():
                seen = [*seen[-PROBLEM_LINES:], line.strip()]
                if _DUMPED.search(line):
                    done += 1
                    report(min(done, tables), tables)
        if process.returncode:
            raise _failure(program, seen)


def _without_password(url: URL) -> str:
    return url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)


def _failure(program: str, seen: Sequence[str]) -> BackupUnusable:
    """Returns the error of a program that has failed: the first of its last lines that says so, and its details."""
    errors = [line for line in seen if " error: " in line or " detail: " in line][:2] or [*seen[-1:], "it said nothing"][:1]
    text = ": ".join(line.removeprefix(f"{program}: ").removeprefix("error: ").removeprefix("detail: ") for line in errors)[:300]
    is_too_old = any("version mismatch" in line or "unsupported version" in line for line in seen)
    return BackupUnusable(f"{program} failed: {text}", TODO_INSTALL if is_too_old else TODO_ACCESS)
