"""Gives memory that was freed back to the operating system."""

import ctypes


def release_freed_memory() -> None:
    """Releases what the C library keeps of freed memory. Does nothing where the C library is not glibc. It runs in any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
