"""STALL_MS=n for processes of Python, as stalls.ts has it for those of Node: all their threads stand still now and then for up to so
long, while other processes go on."""

import os
import random
import threading
import time
from ctypes import PyDLL

_MOST_MS = float(os.environ.get("STALL_MS", "0"))
_SHORTEST_S, _LONGEST_S = 0.02, 0.52
#: A PyDLL's function holds the interpreter's lock: no other thread runs meanwhile.
_usleep = PyDLL(None).usleep


def _stall() -> None:
    chance = random.Random()
    while True:
        time.sleep(chance.uniform(_SHORTEST_S, _LONGEST_S))
        # Seldom for long. It takes no more than a second.
        _usleep(min(999_999, int(1000 * _MOST_MS * chance.random() ** 2)))


def _begin() -> None:
    threading.Thread(target=_stall, daemon=True).start()


if _MOST_MS > 0:
    _begin()
    os.register_at_fork(after_in_child=_begin)
