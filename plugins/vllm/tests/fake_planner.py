"""A planner that misbehaves, for the client's own tests: plays a script to whatever connects."""

import socket
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from slos_serve_vllm.frames import FrameReader, encode_frame, whole_column

HELLO = {"type": "hello", "protocol": "slos-serve-planner", "version": 2}
READY = {"type": "ready", "policy": "slos-serve", "version": "0.1.0", "maxLagUs": 5000}


def told_numbers(sent: bytes) -> list[int]:
    """A column of what the plug-in says."""
    return list(map(int, array("d", sent)))


Script = Callable[["Peer"], None]


class Peer:
    """One connection, as the script sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._reader = FrameReader()
        self._messages: list[Any] = []

    def say(self, message: Any) -> None:
        self.connection.sendall(encode_frame(message))

    def hear(self) -> Any:
        """The next message; None when the other end has gone."""
        while not self._messages:
            piece = self.connection.recv(1 << 16)
            if not piece:
                return None
            self._messages += self._reader.push(piece)
        return self._messages.pop(0)

    def greet(self) -> None:
        """As a planner does, up to `ready`."""
        self.say(HELLO)
        for kind in ("hello", "engine"):
            message = self.hear()
            if message is None:
                # It has not waited for this thread: the next connection is another try.
                raise ConnectionError("the engine has left")
            assert message["type"] == kind
        self.say(READY)


class FakePlanner:
    """Listens; the nth connection gets the nth script, the last script all further ones."""

    def __init__(self, path: Path, *scripts: Script) -> None:
        self.connections = 0
        self._scripts = scripts
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            with connection, suppress(OSError):
                script(Peer(connection))

    def close(self) -> None:
        self._listener.close()


class Obliging:
    """A script: greets, and plans all that is live, each request's whole prompt and then a token a step. Its plans say that
    they take `predicted_us`."""

    def __init__(
        self, predicted_us: float, answers: Callable[["Obliging", Any], bool] = lambda planner, message: True
    ) -> None:
        """`answers`: whether it answers a message."""
        self.heard: list[Any] = []
        self._predicted_us = predicted_us
        self._answers = answers
        self._owed: dict[int, list[int]] = {}
        """Of each request: tokens computed, tokens known, tokens that it may still yield."""
        self._planned: dict[int, list[int]] | None = None
        """What was owed before the last plan."""
        self._batches = 0

    def __call__(self, peer: Peer) -> None:
        peer.greet()
        while (message := peer.hear()) is not None:
            self._take(message)
            self.heard.append(message)
            if self._answers(self, message):
                peer.say({"type": "plan", "seq": message["seq"], **self._plan()})

    def _take(self, message: Any) -> None:
        ran = message["ran"]
        if self._planned is not None and (ran is None or not ran["exact"]):
            self._owed = self._planned
        self._planned = None
        for arrived in message["arrived"]:
            self._owed[arrived["id"]] = [0, arrived["promptTokens"], arrived["maxOutputTokens"]]
        if ran is not None and not ran["exact"]:
            for number, tokens in zip(told_numbers(ran["ids"]), told_numbers(ran["tokens"]), strict=True):
                self._runs(number, tokens)

    def _runs(self, number: int, tokens: int) -> None:
        owed = self._owed[number]
        owed[0] += tokens
        if owed[0] == owed[1]:
            owed[1:] = [owed[1] + 1, owed[2] - 1]

    def _plan(self) -> dict[str, Any]:
        self._planned = {number: list(owed) for number, owed in self._owed.items()}
        due = {number: list(owed) for number, owed in self._owed.items() if owed[2] > 0}
        for number, (computed, known, _) in due.items():
            self._runs(number, known - computed)
        self._batches += bool(due)
        return {
            "batch": self._batches if due else 0,
            "predictedUs": self._predicted_us,
            "ids": whole_column(due),
            "positions": whole_column(computed for computed, _, _ in due.values()),
            "tokens": whole_column(known - computed for computed, known, _ in due.values()),
        }
