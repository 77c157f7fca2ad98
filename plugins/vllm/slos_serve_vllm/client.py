"""The connection to the planner: never waits longer than it is told to, and comes back by itself when it is lost."""

import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .frames import FrameError, FrameReader, encode_frame

PROTOCOL = "slos-serve-planner"
VERSION = 2
_PIECE_BYTES = 1 << 16
_SEND_S = 0.05
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_MOST_TOLD = 20
_CLOSED = "it closed the connection"
_CREDENTIALS = struct.Struct("3i")
"""pid, user, group."""
_log = logging.getLogger("vllm.slos_serve")

Message = dict[str, Any]


class Starts(Protocol):
    """Starts a planner where none listens."""

    def start_if_due(self) -> None: ...


class Client:
    """One engine's connection. `tick` moves it on, `send` and `receive` are for steps while `ready`.

    `opened` counts the connections that came to be ready: a new one knows nothing of what was told before.
    """

    def __init__(
        self,
        path: Path,
        engine: Message,
        hang_s: float,
        starter: Starts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready = False
        self.opened = 0
        self.planner: Message = {}
        """What the planner said of itself when it became ready."""
        self._path = path
        self._engine = engine
        self._hang_s = hang_s
        self._starter = starter
        self._clock = clock
        self._socket: socket.socket | None = None
        self._reader = FrameReader()
        self._inbox: list[Message] = []
        self._greeted = False
        self._began_s = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._next_try_s = 0.0
        self._why = ""
        self._told: set[str] = set()
        self._is_starting = False

    # -- Coming and going

    def tick(self) -> None:
        """Moves a connection on that is not ready: one try to connect when it is due, and the greetings. Does not wait."""
        if self.ready:
            return
        if self._socket is None:
            if self._clock() < self._next_try_s:
                return
            self._connect()
        if self._socket is not None:
            self._take_what_is_there(0.0)
            self._greet()

    def try_now(self) -> None:
        """The next try to connect is due."""
        self._next_try_s = 0.0

    def wait_until_ready(self, timeout_s: float) -> bool:
        """For the start of an engine, where there is time. That one which was just started does not listen yet is no news."""
        end_s = self._clock() + timeout_s
        self._is_starting = self._starter is not None
        while not self.ready and self._clock() < end_s:
            self.tick()
            if not self.ready:
                time.sleep(0.01)
        if self._is_starting and not self.ready:
            self._tell_of(self._why)
        self._is_starting = False
        return self.ready

    def lose(self, why: str) -> None:
        """Gives the connection up; `tick` will try again after a pause that doubles."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self.ready = self._greeted = False
        self._reader = FrameReader()
        self._inbox.clear()
        self._next_try_s = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if not self._is_starting:
            self._tell_of(why)
        self._why = why

    def _tell_of(self, why: str) -> None:
        # The same reasons again and again would fill the log, also where two take turns, and so would a peer with ever new ones.
        if why in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(why)
        _log.warning(
            "slos-serve: no planner at %s: %s. vLLM schedules by itself until there is one.", self._path, why
        )

    def close(self) -> None:
        """The engine ends."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self.ready = False

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            self.lose(f"{error.strerror or error}")
            if self._starter is not None:
                self._starter.start_if_due()
            return
        if (owner := _stranger(connection)) is not None:
            connection.close()
            self.lose(
                f"it is another user's (uid {owner}): name a socket of this user's own in slos_serve's setting `socket`"
            )
            return
        self._socket = connection
        self._began_s = self._clock()
        self.send({"type": "hello", "protocol": PROTOCOL, "version": VERSION})

    def _greet(self) -> None:
        """Reads the planner's hello and its answer to what this engine is."""
        while self._inbox and not self.ready and self._socket is not None:
            message = self._inbox.pop(0)
            kind = message.get("type")
            if kind == "refused":
                self.lose(f"it refuses this engine: {message.get('message')}")
            elif not self._greeted:
                self._check_hello(message)
            elif kind == "ready":
                self._become_ready(message)
            else:
                self.lose(f"it said {str(kind)[:40]} before it was ready")
        if self._socket is not None and not self.ready and self._clock() - self._began_s > self._hang_s:
            self.lose(f"it did not greet within {self._hang_s:g} s")

    def _check_hello(self, message: Message) -> None:
        protocol, version = message.get("protocol"), message.get("version")
        if message.get("type") != "hello" or protocol != PROTOCOL:
            self.lose(f"what listens there is no planner (it speaks {str(protocol)[:40]})")
        elif version != VERSION:
            self.lose(
                f"it speaks version {version} of the protocol, this plug-in version {VERSION}: update one of them"
            )
        else:
            self._greeted = True
            self.send(self._engine)

    def _become_ready(self, message: Message) -> None:
        self.ready = True
        self.opened += 1
        self.planner = message
        self._pause_s = _FIRST_PAUSE_S
        self._why = ""
        self._told.clear()
        _log.info("slos-serve: the planner at %s is ready (policy %s)", self._path, message.get("policy"))

    # -- Messages

    def send(self, message: Message) -> bool:
        """False where the connection is lost. A planner that does not read what was sent counts as lost: what waits here
        would be old when it reads again."""
        if self._socket is None:
            return False
        rest = encode_frame(message)
        try:
            # As a rule the socket takes all of it at once.
            rest = rest[_sent(self._socket, rest) :]
            end_s = self._clock() + (_SEND_S if self.ready else self._hang_s) if rest else 0.0
            while rest:
                if not _waits_for(self._socket, select.POLLOUT, end_s - self._clock()):
                    self.lose("it does not read what it is told")
                    return False
                rest = rest[_sent(self._socket, rest) :]
            return True
        except OSError as error:
            # One that closes at once may have said why: `tick` reads its last words, and loses it when there are no more.
            if self.ready or not isinstance(error, ConnectionError):
                self.lose(_why(error))
            return False

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, waiting at most so long; None where there is none or the connection is lost."""
        if not self._inbox and self._socket is not None:
            # As a rule it is there, whole.
            self._take_what_is_there(0.0)
            if not self._inbox and timeout_s > 0:
                self._wait_for_more(timeout_s)
        return self._inbox.pop(0) if self._inbox else None

    def _wait_for_more(self, timeout_s: float) -> None:
        end_s = self._clock() + timeout_s
        while not self._inbox and self._socket is not None:
            left_s = end_s - self._clock()
            self._take_what_is_there(max(left_s, 0.0))
            if left_s <= 0:
                break

    def _take_what_is_there(self, timeout_s: float) -> None:
        assert self._socket is not None
        try:
            # As a rule it is there: a call to wait for it is one more for each step.
            piece = _what_is_there(self._socket)
            if piece is None and timeout_s > 0 and _waits_for(self._socket, select.POLLIN, timeout_s):
                piece = _what_is_there(self._socket)
            if piece is None:
                return
        except OSError as error:
            self.lose(_why(error))
            return
        if not piece:
            self.lose(_CLOSED)
            return
        try:
            for message in self._reader.push(piece):
                if not isinstance(message, dict):
                    raise FrameError("a message is no map")
                self._inbox.append(message)
        except FrameError as error:
            self.lose(str(error))


def _stranger(connection: socket.socket) -> int | None:
    """The user of the process that listens there, where that is neither this one nor root: it would command this engine."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, user, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return None if user in (0, os.getuid()) else int(user)


def _sent(connection: socket.socket, data: bytes) -> int:
    """How many of the bytes it took."""
    try:
        return connection.send(data)
    except BlockingIOError:
        return 0


def _what_is_there(connection: socket.socket) -> bytes | None:
    try:
        return connection.recv(_PIECE_BYTES)
    except BlockingIOError:
        return None


def _waits_for(connection: socket.socket, what: int, timeout_s: float) -> bool:
    """False where nothing can be read, or written, within the time."""
    poll = select.poll()
    poll.register(connection, what)
    return bool(poll.poll(max(0.0, timeout_s) * 1e3))


def _why(error: OSError) -> str:
    """The same words however the other end's going is noticed."""
    return _CLOSED if isinstance(error, ConnectionError) else f"{error.strerror or error}"
