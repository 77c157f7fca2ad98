"""One real planner for the tests of this run, and a folder for models and sockets."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .planner_process import PlannerProcess

_names = itertools.count()


@pytest.fixture(scope="session")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlannerProcess]:
    process = PlannerProcess(tmp_path_factory.mktemp("planner") / "p.sock")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def settings(planner: PlannerProcess) -> dict[str, Any]:
    """Of an engine that never goes on without its plan: a busy machine is no reason here."""
    return settings_for(planner)


def settings_for(planner: PlannerProcess) -> dict[str, Any]:
    return {
        "socket": str(planner.socket),
        "start": False,
        "deadline_ms": 60_000,
        "hang_seconds": 120,
        "name": f"test-{next(_names)}",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
