"""Ports for what is to listen there later, as src/free-port.ts has them."""

import random
import socket
from pathlib import Path

_LOWEST = 20_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MOST_TRIES = 100


def free_port() -> int:
    """One that nothing listens on, nor comes to by chance: none of those that the system gives to connections."""
    first_given = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    chance = random.SystemRandom()
    for _ in range(_MOST_TRIES):
        port = chance.randrange(_LOWEST, first_given)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {_LOWEST} to {first_given} is free")
