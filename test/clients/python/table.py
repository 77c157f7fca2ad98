"""Clients that are tried, and what is called of them: docs/clients.md shows them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

import httpx
import pytest

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Server:
    """Where the server under test is."""

    url: str
    key: str
    model: str

    @property
    def v1(self) -> str:
        """What most clients call its base URL."""
        return f"{self.url}/v1"

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))
        )

    def is_idle_soon(self) -> bool:
        """Whether it stops computing for a client that has left, before the answer would have ended: 3,800 steps of a
        millisecond, and more on a busy machine."""
        end_s = time.monotonic() + 3.5
        while time.monotonic() < end_s:
            if self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting") == 0:
                return True
            time.sleep(0.02)
        return False


def server_under_test() -> Server:
    return Server(os.environ["CLIENTS_URL"], os.environ["CLIENTS_KEY"], os.environ["CLIENTS_MODEL"])


@dataclass(frozen=True, eq=False)
class Client:
    """A row of the table."""

    name: str
    #: What it is installed as.
    packages: tuple[str, ...]
    #: The endpoints that it asks.
    asks: tuple[str, ...]
    #: Makes one that is pointed at the server.
    open: Callable[..., Any]
    calls: list[str] = field(default_factory=list)

    @property
    def row(self) -> str:
        versions = ", ".join(f"{name} {version(name)}" for name in self.packages)
        asks = ", ".join(f"`{path}`" for path in self.asks)
        return f"| {self.name} | {versions} | {asks} | {'; '.join(self.calls)} |"


def call(name: str, *clients: Client) -> Callable[[Test], Test]:
    """Names a test, which gets each of these clients as `client`: it fails where one does not get what its caller would want."""

    def mark(test: Test) -> Test:
        for client in clients:
            client.calls.append(name)
        return pytest.mark.parametrize("client", clients, ids=[client.name for client in clients])(test)

    return mark
