"""One real planner for the tests of this run, and a folder for models and sockets."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .planner_process import PlannerProcess
from .tiny_model import write_tiny_model

if TYPE_CHECKING:
    from .real_engine import Answers

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


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Llama."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@contextmanager
def _in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield


@pytest.fixture(scope="module")
def in_this_process() -> Iterator[None]:
    """Real engines of these tests run in this process."""
    with _in_this_process():
        yield


@pytest.fixture(scope="session")
def own_answers(model: str) -> "Answers":
    """What the tiny Llama says under vLLM's own scheduler."""
    # Most tests need none of vLLM.
    from .real_engine import engine_of, give, run

    with _in_this_process():
        engine = engine_of(model, None)
        give(engine)
        return run(engine)
