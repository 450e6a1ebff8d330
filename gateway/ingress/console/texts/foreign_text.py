"""Text of others on a page: bounded, and with each character that would be invisible or reorder text as a visible mark."""

import re
from typing import Final

SHOWN_MAX: Final = 4_000  # characters of a text in the flow of a page
BLOCK_MAX: Final = 64_000  # characters of a block of its own
# Control characters (not tab and line feed), marks that reorder text, line breaks that browsers do not show as such, the invisible
# Default_Ignorable_Code_Point characters of Unicode, variation selectors, tags, and lone surrogates, which no answer can hold.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def mark_hidden(text: str) -> str:
    """Returns the text with hidden characters as ⟦U+202E⟧. A carriage return before a line feed is left out."""
    if _HIDDEN.search(text) is None:
        return text
    return _HIDDEN.sub(lambda found: f"⟦U+{ord(found[0]):04X}⟧", text.replace("\r\n", "\n"))


def shorten(text: str, limit: int) -> str:
    """Returns at most `limit` characters, and says how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]}… ⟦{len(text) - limit} characters more⟧"


def shown_text(value: object, limit: int = SHOWN_MAX) -> str:
    """Returns any value as the text that a page shows. It is not escaped yet."""
    return mark_hidden(shorten(value if isinstance(value, str) else str(value), limit))
