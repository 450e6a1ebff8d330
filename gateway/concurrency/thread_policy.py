"""How the operating system schedules the threads beside the event loop."""

import os
from contextlib import suppress


def avoid_preemption() -> None:
    """Lets the calling thread wait, when it wakes, until the thread that runs on its processor sleeps or has used up its turn.

    The share of the processor stays the same (SCHED_BATCH of sched(7)). A thread that wakes often, and runs for microseconds, would
    otherwise interrupt the event loop each time, only to wait for the interpreter's lock. Does nothing where the system has no such
    policy, or forbids to change it.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
