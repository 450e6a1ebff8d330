"""Keys of the board: one to sixteen segments of plain letters, digits and . _ @ -, with slashes between, such as customer/42/status.

A key has one spelling: nothing is decoded, normalized or trimmed. What could be read in two ways is refused: dots alone, empty segments,
percent signs, and all characters beyond ASCII, which include look-alikes.
"""

import re
from typing import Final

from gateway.state.board.problems import BadKey

KEY_CHARS_MAX: Final = 512
SEGMENTS_MAX: Final = 16
SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]*")
SHOWN_CHARS: Final = 60
RESERVED_SEGMENT: Final = "events"  # state:read:events/TYPE and state:write:events/TYPE are permissions on events
KEY_FORM: Final = (
    f"A key has one to {SEGMENTS_MAX} segments with a slash between them, such as customer/42/status. A segment begins with a letter, a "
    f"digit or _, and goes on with these or . @ -. The key has at most {KEY_CHARS_MAX} characters."
)


def check_key(key: str) -> str:
    """Returns the key. Raises BadKey, which says what is wrong."""
    problem = _problem_of(key)
    if problem:
        raise BadKey(f"{problem} {KEY_FORM}")
    return key


def is_key(text: str) -> bool:
    """Whether the text is a key."""
    return not _problem_of(text)


def check_prefix(prefix: str) -> str:
    """Returns the prefix without a slash at its end. Empty, it covers all keys. Raises BadKey."""
    plain = prefix.removesuffix("/")
    return check_key(plain) if plain else ""


def is_within(key: str, prefix: str) -> bool:
    """Whether a key is the prefix, or below it: customer/4 covers customer/4/status, and not customer/42."""
    return not prefix or key == prefix or key.startswith(prefix + "/")


def subject_of(key: str) -> str:
    """The subject that a key is about, `customer:42` for customer/42/status. Empty for a key of one segment."""
    kind, slash, rest = key.partition("/")
    return f"{kind}:{rest.partition('/')[0]}" if slash else ""


def prefixes_of(key: str) -> list[str]:
    """The key and all prefixes of it, the longest first."""
    segments = key.split("/")
    return ["/".join(segments[:count]) for count in range(len(segments), 0, -1)]


def _problem_of(key: str) -> str:
    if len(key) > KEY_CHARS_MAX:
        return f"The key has {len(key)} characters."
    segments = key.split("/")
    if len(segments) > SEGMENTS_MAX:
        return f"The key has {len(segments)} segments."
    if segments[0] == RESERVED_SEGMENT:
        return f"Keys that begin with {RESERVED_SEGMENT} are refused, since permissions on them are those of events."
    wrong = next((segment for segment in segments if not SEGMENT.fullmatch(segment)), None)
    if wrong is None:
        return ""
    return "A segment of the key is empty." if not wrong else f"The segment {wrong[:SHOWN_CHARS]!a} of the key is not allowed."
