"""Clients that are tried, and what is called of them: docs/clients.md shows them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

import httpx
import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

#: For what comes soon, on a machine that is as busy as can be.
LONG_S = 120.0


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

    @property
    def running(self) -> int:
        """Requests that it computes."""
        return self._metric("vllm:num_requests_running")

    @contextmanager
    def is_left_early(self) -> Iterator[None]:
        """Within, a client leaves an endless answer: the server stops computing it, long before its end."""
        before = self._given_up
        yield
        end_s = time.monotonic() + LONG_S
        while self._given_up == before or self.running > 0:
            assert time.monotonic() < end_s, "it computes on for a client that has left"
            time.sleep(0.02)
        assert self._given_up == before + 1

    @property
    def _given_up(self) -> int:
        return self._metric("vllm:request_success_total", 'finished_reason="abort"')

    def _metric(self, name: str, label: str = "") -> int:
        lines = httpx.get(f"{self.url}/metrics", timeout=LONG_S).text.splitlines()
        lines = [line for line in lines if line.startswith(f"{name}{{") and label in line]
        assert lines, f"there is no {name}"
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines)


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
