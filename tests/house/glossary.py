"""The glossary: its rows, and which of its words the code and the other documents use."""

import re
from dataclasses import dataclass

ROW = re.compile(r"^\| \*\*(?P<word>[^*|]+)\*\* \| (?P<meaning>[^|]*) \| (?P<origin>[^|]*) \|$", re.MULTILINE)
LINE = re.compile(r"^\|.*$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    word: str
    meaning: str
    origin: str


def entries_of(text: str) -> list[Entry]:
    """The rows of the table below its heading. Raises ValueError for a row that is no word with a meaning and an origin."""
    found = [Entry(row["word"], row["meaning"].strip(), row["origin"].strip()) for row in ROW.finditer(text)]
    if len(found) != len(LINE.findall(text)) - 2:
        raise ValueError("a row of the glossary is not `| **word** | meaning | origin |`")
    return found


def is_used(word: str, text: str) -> bool:
    """Whether a text has the word, in any case: "hop token" also as `hop_token`, `hop-token`, `HopToken` and `hop_tokens`."""
    return re.search(r"(?<![a-z])" + r"[ _-]?".join(map(re.escape, word.lower().split())), text.lower()) is not None
