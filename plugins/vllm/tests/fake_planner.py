"""A planner that misbehaves, for the client's own tests: plays a script to whatever connects."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from slos_serve_vllm.frames import FrameReader, encode_frame

HELLO = {"type": "hello", "protocol": "slos-serve-planner", "version": 1}
READY = {"type": "ready", "policy": "slos-serve", "version": "0.1.0", "maxLagUs": 5000}

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
        assert self.hear()["type"] == "hello"
        assert self.hear()["type"] == "engine"
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
