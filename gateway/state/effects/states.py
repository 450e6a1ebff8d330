"""How the effect of an act on a subject has ended."""

from typing import Final

ASKED: Final = "asked"  # no end: the tool waits for an answer, and the call that brings it goes on with the effect
DONE: Final = "done"
FAILED: Final = "failed"  # it had no effect: it counts neither as a last contact nor for a cool-down
UNKNOWN: Final = "unknown"
