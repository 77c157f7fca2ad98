"""Where the time goes that planning adds to a step of vLLM's scheduler: step-overhead.py's engine, with the plug-in's functions
timed one by one, each without those that it calls.

    node bench/vllm/step-overhead.ts --parts --running 64 --out bench/results/vllm/step-parts.json

In medians over the steps, µs of this thread's CPU time, system calls included: other programs of the machine spoil that least,
but not little: what they put out of the caches is missing afterwards. What a timer takes itself is in it, half of it in the
caller's part.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("step_overhead", HERE / "step-overhead.py")
assert spec is not None
assert spec.loader is not None
overhead: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(overhead)

from slos_serve_vllm import client, conductor, frames, scheduler, tokens_out  # noqa: E402

NOW_S = time.thread_time
SPENT_S: dict[str, float] = {}
"""Since the step began, by part."""
INNER_S: list[float] = []
"""Of each timed call that is under way: what the timed calls within it took."""

PARTS: list[tuple[Any, str, str]] = [
    (scheduler.PlannedScheduler, "schedule", "arranging: schedule() itself, vLLM's queues"),
    (scheduler, "Arrangement", "arranging: where each request is, how much it may take"),
    (scheduler, "evict", "arranging: evictions"),
    (conductor.Conductor, "notice", "taking the plan: the rest"),
    (conductor.Conductor, "plan_of_step", "taking the plan: the rest"),
    (client.Client, "receive", "taking the plan: the rest"),
    (client, "_what_is_there", "taking the plan: recv"),
    (frames.FrameReader, "push", "taking the plan: check sums, MessagePack"),
    (conductor, "read_plan", "taking the plan: its columns"),
    (conductor.Conductor, "scheduled", "telling what ran: the rest"),
    (conductor.Conductor, "_ask", "telling what ran: the rest"),
    (conductor, "step_of", "telling what ran: comparing with the plan"),
    (conductor, "compare", "telling what ran: comparing with the plan"),
    (conductor, "ran_message", "telling what ran: the rest"),
    (scheduler, "free_tokens", "telling what ran: the rest"),
    (client, "encode_frame", "telling what ran: check sums, MessagePack"),
    (client, "_sent", "telling what ran: send, which wakes the planner"),
    (scheduler.PlannedScheduler, "update_from_output", "what landed: the rest"),
    (conductor.Conductor, "landed", "what landed: the rest"),
    (conductor, "landed_message", "what landed: what came out"),
    (tokens_out.TokensOut, "came_of_all", "what landed: what came out"),
    (tokens_out.TokensOut, "filled", "what landed: blocks that were filled"),
    (overhead.Counted, "schedule", "vLLM's schedule()"),
    (overhead.Counted, "update_from_output", "vLLM's update_from_output()"),
]


def timed(method: Callable[..., Any], part: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        INNER_S.append(0.0)
        began_s = NOW_S()
        try:
            return method(*arguments)
        finally:
            took_s = NOW_S() - began_s
            SPENT_S[part] = SPENT_S.get(part, 0.0) + took_s - INNER_S.pop()
            if INNER_S:
                INNER_S[-1] += took_s

    return call


class StepBegins(dict[str, float]):
    """In the place of what step-overhead.py adds up, which it sets to 0 as each step begins."""

    def __init__(self, steps: list[dict[str, float]]) -> None:
        super().__init__(vllm=0.0, waiting=0.0)
        self._steps = steps

    def __setitem__(self, part: str, spent_s: float) -> None:
        if part == "vllm" and spent_s == 0.0:
            self._steps.append(dict(SPENT_S))
            SPENT_S.clear()
        super().__setitem__(part, spent_s)


def main() -> None:
    arguments = read_arguments()
    for owner, name, part in PARTS:
        setattr(owner, name, timed(getattr(owner, name), part))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        planner = overhead.PlannerProcess(Path(folder) / "p.sock", "--max-lag", "1000", "--log-level", "error")
        planner.start()
        try:
            for is_async in (False, True):
                cell = overhead.Cell(arguments.running, is_async, arguments.device_ms)
                row: dict[str, Any] = {"running": cell.running, "async": is_async, "deviceMs": cell.device_ms}
                for who in ("own", "planned"):
                    row[who] = parts_of(who, cell, arguments, Path(folder), planner.socket)
                rows.append(row)
                print(json.dumps(rows[-1], indent=1), flush=True)
        finally:
            planner.stop()
    if arguments.out:
        result = {"vllm": overhead.vllm.__version__, "cpus": os.cpu_count(), "load": os.getloadavg(), "medianUs": rows}
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


def parts_of(who: str, cell: Any, arguments: Any, folder: Path, socket: Path) -> dict[str, float]:
    """µs by part, in medians over steps."""
    settings = {"socket": str(socket), "start": False, "deadline_ms": 5_000, "name": f"{cell.running}-{cell.is_async}"}
    in_air = 2 if cell.is_async else 1
    config = overhead.engine_config(
        folder, cell.is_async, 0, in_air, max_num_seqs=cell.running, batch_tokens=overhead.BATCH_TOKENS
    )
    made = overhead.make_scheduler(config, cell.running * 40, settings, overhead.KINDS[who][cell.is_async])
    overhead.freeze_gc_heap()
    steps: list[dict[str, float]] = []
    overhead.SPENT_S = StepBegins(steps)
    overhead.timed_steps(made, overhead.RequestMaker(config), cell, arguments.steps)
    made.shutdown()
    # As step-overhead.py: a quarter of the steps goes before.
    steps = steps[arguments.steps // 4 :]
    parts = dict.fromkeys(part for _, _, part in PARTS if any(part in step for step in steps))
    return {part: round(overhead.quantile([step.get(part, 0.0) for step in steps], 0.5) * 1e6, 1) for part in parts}


def read_arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--running", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--device-ms", type=float, default=15)
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
