"""One real planner for the tests of this run, and a folder for models and sockets."""

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .planner_process import PlannerProcess
from .tiny_model import write_tiny_model
from .waits import LONG_S

if TYPE_CHECKING:
    from .answers import Answers

_names = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What planners learn of step times here is known to none of another run, nor to the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLOS_SERVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def log_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reaches `caplog`, and once: pytest listens at the root, and at loggers that hand nothing on to it when a test begins."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)


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
        "deadline_ms": LONG_S * 1e3,
        "start_seconds": LONG_S,
        "hang_seconds": LONG_S,
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
