"""A real vLLM engine in this process, whose scheduler can be changed between windows, on a clock that skips idle time."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before vLLM is imported.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "plugins" / "vllm"))

import torch  # noqa: E402

torch.set_num_threads(1)

from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.v1.core.sched.async_scheduler import AsyncScheduler  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.engine.llm_engine import LLMEngine  # noqa: E402

from slos_serve_vllm.conductor import Conductor  # noqa: E402
from slos_serve_vllm.scheduler import PlannedScheduler, SloAsyncScheduler, SloScheduler  # noqa: E402


@dataclass(frozen=True)
class Device:
    """What an engine on it is started with."""

    dtype: str
    max_sequences: int
    max_model_len: int
    largest_budget: int
    block_tokens: int | None
    """None: vLLM's choice."""


DEVICES = {
    "cpu": Device("float32", 32, 1024, 2048, 32),
    "gpu": Device("bfloat16", 256, 8192, 8192, None),
}


class Clock:
    """Idle time is jumped over. On a processor it is this process's CPU time, so that other programs of the machine spoil
    nothing; what steps wait for their plans is no CPU time of this process and is added. On a GPU it is the wall's."""

    def __init__(self) -> None:
        self._added_s = 0.0
        self._own_s = time.process_time

    def follow_the_wall(self) -> None:
        self._own_s = time.perf_counter

    def __call__(self) -> float:
        return self._own_s() + self._added_s

    def jump_to(self, at_s: float) -> None:
        self.add(max(0.0, at_s - self()))

    def add(self, seconds: float) -> None:
        self._added_s += seconds


CLOCK = Clock()
PlannedScheduler.clock_us = staticmethod(lambda: int(CLOCK() * 1e6))
WAITS_S: list[float] = []
"""What steps waited for their plans, since this was emptied."""


def count_waits(on_the_clock: bool) -> None:
    """Keeps what steps wait for their plans; `on_the_clock`: it passes there as well, which does not pass by itself."""
    take = Conductor._take

    def counted(self: Conductor) -> Any:
        before, spent = time.monotonic(), time.process_time()
        plan = take(self)
        # What of it this process itself computed is on the clock already.
        waited = max(0.0, time.monotonic() - before - (time.process_time() - spent))
        WAITS_S.append(waited)
        if on_the_clock:
            CLOCK.add(waited)
        return plan

    Conductor._take = counted  # type: ignore[method-assign]


_KEYWORDS: dict[str, Any] = {}


class _Seen(Scheduler):
    """vLLM's own scheduler, and what it was made with."""

    def __init__(self, **keywords: Any) -> None:
        _KEYWORDS.update(keywords)
        super().__init__(**keywords)


class _SeenAsync(AsyncScheduler):
    """vLLM schedules asynchronously only with a scheduler of this kind."""

    def __init__(self, **keywords: Any) -> None:
        _KEYWORDS.update(keywords)
        super().__init__(**keywords)


def kinds_of(config: Any) -> tuple[type, type]:
    """vLLM's own scheduler and the plug-in's, by how vLLM schedules."""
    is_async = config.scheduler_config.async_scheduling
    return (AsyncScheduler, SloAsyncScheduler) if is_async else (Scheduler, SloScheduler)


class Engine:
    """One model; schedulers are made for it and take turns."""

    def __init__(self, model: str, load_format: str, device: str, is_async: bool) -> None:
        of = DEVICES[device]
        # On a GPU plans come in time or vLLM schedules by itself, as it does in service.
        self._patience = {"deadline_ms": 60_000, "hang_seconds": 120} if device == "cpu" else {}
        arguments = EngineArgs(
            model=model,
            load_format=load_format,
            dtype=of.dtype,
            enforce_eager=device == "cpu",
            max_model_len=of.max_model_len,
            max_num_seqs=of.max_sequences,
            max_num_batched_tokens=of.largest_budget,
            enable_prefix_caching=False,
            async_scheduling=is_async,
            **({} if of.block_tokens is None else {"block_size": of.block_tokens}),
            scheduler_reserve_full_isl=False,
            disable_log_stats=True,
            scheduler_cls=_SeenAsync if is_async else _Seen,
        )
        self.llm = LLMEngine.from_engine_args(arguments)
        self._core = self.llm.engine_core.engine_core
        self._all = [self._core.scheduler]

    @property
    def scheduler(self) -> Any:
        return self._core.scheduler

    def fcfs(self) -> Any:
        """vLLM's own scheduler, first come, first served."""
        return self._all[0]

    def by_priority(self) -> Any:
        """vLLM's own scheduler in its priority mode."""
        keywords = self._keywords(policy="priority")
        scheduler = kinds_of(keywords["vllm_config"])[0](**keywords)
        self._all.append(scheduler)
        return scheduler

    def planned(self, socket: Path, name: str) -> Any:
        """The plug-in's, led by the planner at the socket. On a processor it never goes on without its plan: how long plans take
        is counted."""
        settings = {"socket": str(socket), "start": False, "name": name, **self._patience}
        keywords = self._keywords(policy="fcfs")
        keywords["vllm_config"].additional_config = {"slos_serve": settings}
        scheduler = kinds_of(keywords["vllm_config"])[1](**keywords)
        assert scheduler._client.ready, f"no planner at {socket}"
        self._all.append(scheduler)
        return scheduler

    def use(self, scheduler: Any, budget: int) -> None:
        """Only between windows: the last one's requests have ended."""
        while self._core.scheduler.has_requests():
            self.llm.step()
        self._core.scheduler = scheduler
        scheduler.max_num_scheduled_tokens = budget

    def _keywords(self, policy: str) -> dict[str, Any]:
        config = copy.copy(_KEYWORDS["vllm_config"])
        config.scheduler_config = copy.copy(config.scheduler_config)
        config.scheduler_config.policy = policy
        return {**_KEYWORDS, "vllm_config": config}


class Planner:
    """`slos-serve planner` on a socket of its own."""

    def __init__(self, folder: Path, policy: str, config: Path, record: Path | None = None) -> None:
        """`record`: a folder for what it is told and decides."""
        self.socket = folder / f"{policy}.sock"
        node = os.environ.get("SLOS_SERVE_NODE", str(REPOSITORY / "node_modules" / ".bin" / "node"))
        main = str(REPOSITORY / "src" / "cli" / "main.ts")
        arguments = ["--socket", str(self.socket), "--policy", policy, "--config", str(config), "--log-level", "warn"]
        if record is not None:
            record.mkdir(parents=True, exist_ok=True)
            arguments += ["--record", str(record / f"{policy}.rec")]
        # What it learns of step times is of this run alone.
        environment = {**os.environ, "SLOS_SERVE_CACHE": str(folder / "cache")}
        self._process = subprocess.Popen([node, main, "planner", *arguments], env=environment)
        end_s = time.monotonic() + 120
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"the planner of {policy} does not listen")
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
