"""Starts a planner where none listens, and ends what it has started."""

import atexit
import logging
import os
import shlex
import shutil
import signal
import stat
import subprocess
import time
from ctypes import CDLL
from pathlib import Path

from .config import Config, ConfigError

_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_STOP_S = 5.0
# Where the signal of a parent that ends does not exist.
_GOES_AWAY = ("--exit-when-idle", "60")
_PR_SET_PDEATHSIG = 1
NOT_INSTALLED = (
    "there is no slos-serve on the PATH, and no npx; install Node and slos-serve (npm install -g slos-serve), or say in "
    "slos_serve's setting `command` how it is started"
)
_log = logging.getLogger("vllm.slos_serve")


def command_of(config: Config) -> list[str] | None:
    """How `slos-serve` is started here, or None where it is not installed."""
    if config.command is not None:
        return config.command
    if (program := shutil.which("slos-serve")) is not None:
        return [program]
    if (npx := shutil.which("npx")) is not None:
        return [npx, "--no-install", "slos-serve"]
    return None


def private_folder(folder: Path) -> None:
    """Makes the folder of the socket. Raises ConfigError where it is another user's: its socket would be, too."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to another user: name a socket in slos_serve's setting `socket`")
    folder.chmod(0o700)


class Starter:
    """Keeps one planner process. A planner that ends is started again, after a pause that doubles."""

    def __init__(self, command: list[str], socket: Path, arguments: list[str], first_s: float = 0.0) -> None:
        """`first_s`: how long to wait for another rank's planner before one is started here."""
        self._command = [*command, "planner", "--socket", str(socket), *_GOES_AWAY, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = _PAUSE_S
        self._not_before_s = time.monotonic() + first_s
        self._ended = False
        self._has_told = False
        atexit.register(self.stop)

    def start_if_due(self) -> None:
        """Starts one, unless the last still runs or was started a moment ago."""
        now_s = time.monotonic()
        if (
            self._ended
            or now_s < self._not_before_s
            or (self._process is not None and self._process.poll() is None)
        ):
            return
        self._tell_of_its_end()
        self._not_before_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            _log.error(
                "slos-serve: cannot start a planner (%s): %s", self._command[0], error.strerror or error
            )
            return
        _log.info("slos-serve: starts a planner: %s", shlex.join(self._command))

    def _tell_of_its_end(self) -> None:
        """Once: one that cannot start is started again and again."""
        if self._process is None or self._has_told:
            return
        self._has_told = True
        _log.error(
            "slos-serve: the planner has ended with exit code %s and is started again: %s",
            self._process.returncode,
            shlex.join(self._command),
        )

    def stop(self) -> None:
        """Ends the planner that this has started."""
        self._ended = True
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    """A vLLM that is killed would leave its planner behind."""
    CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
