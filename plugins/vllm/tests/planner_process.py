"""The real planner, from this repository, as a process of its own."""

import os
import subprocess
from pathlib import Path

from .waits import LONG_S, wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
NODE = os.environ.get("SLOS_SERVE_NODE", str(REPOSITORY / "node_modules" / ".bin" / "node"))
COMMAND = [NODE, str(REPOSITORY / "src" / "cli" / "main.ts")]


class PlannerProcess:
    """`slos-serve planner` on a socket of its own."""

    def __init__(self, socket: Path, *arguments: str) -> None:
        self.socket = socket
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens, or at once where a killed one has left its socket."""
        process = subprocess.Popen([*COMMAND, "planner", "--socket", str(self.socket), *self._arguments])
        self._process = process
        wait_until(lambda: self.socket.exists() or process.poll() is not None, "the planner does not listen")
        assert process.poll() is None, "the planner has ended at once"

    def kill(self) -> None:
        """As a crash: nothing is said, nothing is tidied up."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(LONG_S)
