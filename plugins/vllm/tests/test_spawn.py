"""A planner that the plug-in starts, where it cannot run."""

import sys
from pathlib import Path
from typing import Any

import pytest

from slos_serve_vllm import spawn
from slos_serve_vllm.config import Config
from slos_serve_vllm.spawn import Starter, command_of

from .fake_engine import engine_config, make_scheduler
from .waits import wait_until


def test_one_that_ends_is_told_of_once_and_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spawn, "_PAUSE_S", 0.01)
    starts = folder / "starts"
    program = f"import sys; open({str(starts)!r}, 'a').write('x'); sys.exit(3)"
    starter = Starter([sys.executable, "-c", program], folder / "p.sock", [])

    def is_started_again() -> bool:
        starter.start_if_due()
        return starts.exists() and len(starts.read_text()) >= 3

    wait_until(is_started_again, "it was not started again")
    starter.stop()
    assert caplog.text.count("the planner has ended with exit code 3") == 1


def test_that_none_is_installed_is_told_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = engine_config(folder, False, 0, 1)
    monkeypatch.setenv("PATH", str(folder))
    assert command_of(Config()) is None
    settings: dict[str, Any] = {"start_seconds": 600}
    scheduler = make_scheduler(config, 100, settings)
    assert "no planner can be started: there is no slos-serve on the PATH" in caplog.text
    scheduler.shutdown()
