"""Waiting for what comes soon, for as long as a machine may take that is as busy as can be."""

import time
from collections.abc import Callable

LONG_S = 300.0


def wait_until(is_so: Callable[[], bool], what: str = "it never came to that") -> None:
    """Looks again and again; fails with `what`."""
    end_s = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < end_s, what
        time.sleep(0.005)
