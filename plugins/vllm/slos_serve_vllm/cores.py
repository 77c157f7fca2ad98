"""On which core this thread runs: the planner keeps off it."""

import ctypes
from collections.abc import Callable


def _reader() -> Callable[[], int] | None:
    try:
        # Without the signature ctypes would look for it at each call.
        reader = ctypes.CDLL(None).sched_getcpu
        reader.argtypes, reader.restype = (), ctypes.c_int
        return reader
    except (OSError, AttributeError):
        return None


_read = _reader()


def current_core() -> int | None:
    """Number of the core, from 0 on; None where the system does not say."""
    core = _read() if _read is not None else -1
    return core if core >= 0 else None
