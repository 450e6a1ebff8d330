"""What is wrong with documents: each problem with its file and line."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.cli.exit_codes import CommandError

DIFFERENCES_FOUND = 5  # the exit code of `diff` where there are some


class BadMember(Exception):
    """A member of a document is wrong. `path` is its JSON pointer within the document."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DocumentProblem:
    """What is wrong, in which file and line; the line is 0 where it is not known.

    `reason` goes on a sentence about the member at `path`, or about the `subject` where the path is empty.
    """

    file: str
    line: int
    path: str
    reason: str
    subject: str = "document"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        named = self.path.strip("/").replace("/", ".") or self.subject
        return f"{where}: {named} {self.reason}" if named else f"{where}: {self.reason}"


class DocumentsRefused(CommandError):
    """Documents can't be applied as they are: nothing was changed."""

    exit_code = 2
    code = "bad-documents"

    def __init__(self, problems: Sequence[DocumentProblem]) -> None:
        found = [{"file": each.file, "line": each.line, "path": each.path, "reason": each.reason} for each in problems]
        todo = "docs/configuration-as-code.md has the members of each kind"
        super().__init__("\n".join(map(str, problems)), todo, details={"problems": found})
