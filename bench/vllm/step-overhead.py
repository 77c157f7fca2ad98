"""What planning adds to a step of vLLM's scheduler, by requests that run: vLLM's own schedulers and the plug-in's, one after the
other on the same requests, with made-up outputs and the real planner. The engine's device is a clock: it computes each step for
so long, one after the other, and the planner makes the next plan meanwhile, as beside a GPU. With asynchronous scheduling the next
step is scheduled while the device computes one.

    node bench/vllm/step-overhead.ts --running 64,256,1024 --steps 400 --out bench/results/vllm/step-overhead.json

Resumes: cells that --out has are not measured again.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "plugins" / "vllm"))

import vllm  # noqa: E402
from tests.fake_engine import RequestMaker, engine_config, make_scheduler  # noqa: E402
from tests.planner_process import PlannerProcess  # noqa: E402
from slos_serve_vllm.client import Client  # noqa: E402
from slos_serve_vllm.scheduler import PlannedScheduler  # noqa: E402
from vllm.utils.gc_utils import freeze_gc_heap  # noqa: E402
from vllm.v1.core.sched.async_scheduler import AsyncScheduler  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.outputs import ModelRunnerOutput  # noqa: E402

NOW_S = time.perf_counter
"""What parts of steps are measured by: the wall's clock, or this thread's CPU time, which other programs of the machine spoil less."""
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 400
BATCH_TOKENS = 8192
SPENT_S = {"vllm": 0.0, "waiting": 0.0}
"""In vLLM's own code, and for plans to be there and read, since a step began."""


def counted(method: Callable[..., Any], part: str) -> Callable[..., Any]:
    """The same, and what it takes is added to that part."""

    def timed(*arguments: Any) -> Any:
        began = NOW_S()
        try:
            return method(*arguments)
        finally:
            SPENT_S[part] += NOW_S() - began

    return timed


class Counted:
    """Over vLLM's schedulers, and under the plug-in's."""

    schedule = counted(lambda self, *rest: super(Counted, self).schedule(*rest), "vllm")
    update_from_output = counted(lambda self, *rest: super(Counted, self).update_from_output(*rest), "vllm")


class Own(Counted, Scheduler):
    pass


class OwnAsync(Counted, AsyncScheduler):
    pass


class Planned(PlannedScheduler, Counted, Scheduler):
    pass


class PlannedAsync(PlannedScheduler, Counted, AsyncScheduler):
    pass


KINDS = {"own": (Own, OwnAsync), "planned": (Planned, PlannedAsync)}


def main() -> None:
    global NOW_S
    arguments = read_arguments()
    if arguments.cpu_time:
        NOW_S = time.thread_time
    Client.receive = counted(Client.receive, "waiting")  # type: ignore[method-assign]
    cells = [Cell(count, is_async, device_ms) for count, device_ms in zip(arguments.running, arguments.device_ms) for is_async in (False, True)]
    rows = rows_in(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        planner = PlannerProcess(Path(folder) / "p.sock", "--max-lag", "1000", "--log-level", "error")
        planner.start()
        try:
            for cell in cells:
                if any((row["running"], row["async"], row["deviceMs"]) == cell for row in rows):
                    continue
                rows.append(compare(cell, arguments, Path(folder), planner.socket))
                print(json.dumps(rows[-1]), flush=True)
                keep(rows, arguments.out)
        finally:
            planner.stop()


class Cell(NamedTuple):
    running: int
    is_async: bool
    device_ms: float
    """How long the device computes a step."""


def rows_in(path: str) -> list[dict[str, Any]]:
    """Of this bench: an earlier one had the device idle while steps were scheduled."""
    rows = json.loads(Path(path).read_text())["rows"] if path and Path(path).exists() else []
    return [row for row in rows if "deviceMs" in row]


def keep(rows: list[dict[str, Any]], path: str) -> None:
    if path:
        measured = "CPU time" if NOW_S is time.thread_time else "wall"
        result = {"vllm": vllm.__version__, "measured": measured, "cpus": os.cpu_count(), "load": os.getloadavg(), "rows": rows}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(result, indent=1) + "\n")


def compare(cell: Cell, arguments: Any, folder: Path, socket: Path) -> dict[str, Any]:
    """Rounds of both, by turns: what slows the machine down meets both."""
    count, is_async, device_ms = cell
    steps: dict[str, list[dict[str, float]]] = {"own": [], "planned": []}
    counters: dict[str, int] = {}
    for turn in range(arguments.rounds):
        for who in ("own", "planned") if turn % 2 == 0 else ("planned", "own"):
            settings = {"socket": str(socket), "start": False, "deadline_ms": 5_000, "name": f"{count}-{is_async}-{turn}"}
            config = engine_config(folder, is_async, 0, 2 if is_async else 1, max_num_seqs=count, batch_tokens=BATCH_TOKENS)
            scheduler = make_scheduler(config, count * 40, settings, KINDS[who][is_async])
            # As vLLM's engine does once it has started.
            freeze_gc_heap()
            steps[who] += timed_steps(scheduler, RequestMaker(config), cell, arguments.steps)
            if who == "planned":
                of_turn = vars(scheduler.conductor.counters)
                counters = {name: counters.get(name, 0) + number for name, number in of_turn.items()}
            scheduler.shutdown()
    ms = {who: [step["total"] for step in steps[who]] for who in steps}
    median = lambda who, part: quantile([step[part] for step in steps[who]], 0.5)  # noqa: E731
    per_s = {who: round(len(steps[who]) / (sum(step["wall"] for step in steps[who]) / 1e3), 3) for who in steps}
    return {
        **{"running": count, "async": is_async, "deviceMs": device_ms, "steps": len(ms["planned"])},
        "addedMs": {name: round(quantile(ms["planned"], at) - quantile(ms["own"], at), 3) for name, at in QUANTILES.items()},
        # In medians: the plug-in's own code, waiting for plans and reading them, and what vLLM's own code takes more beside them.
        "partsMs": {
            "plugIn": round(median("planned", "rest") - median("own", "rest"), 3),
            "waiting": round(median("planned", "waiting"), 3),
            "vllm": round(median("planned", "vllm") - median("own", "vllm"), 3),
        },
        **{f"{who}Ms": {name: round(quantile(ms[who], at), 3) for name, at in QUANTILES.items()} for who in ms},
        # With all between two steps, as the engine has them.
        "stepsPerSec": {**per_s, "ratio": round(per_s["planned"] / per_s["own"], 4)},
        "counters": counters,
    }


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def quantile(values: list[float], at: float) -> float:
    return sorted(values)[min(len(values) - 1, int(at * len(values)))]


class Device:
    """Computes steps one after the other, each for so long."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._free_s = 0.0

    def begin(self) -> float:
        """A step more; when it will be done."""
        self._free_s = max(self._free_s, time.perf_counter()) + self._step_s
        return self._free_s


def timed_steps(scheduler: Any, make: RequestMaker, cell: Cell, counted_steps: int) -> list[dict[str, float]]:
    """ms of each step, once all run; ended requests are followed by others. `total`: schedule() and update_from_output()
    together; `vllm` and `waiting` of it; `wall`: to the next step."""
    steps: list[dict[str, float]] = []
    flying: list[Any] = []
    in_air = 2 if scheduler.vllm_config.scheduler_config.async_scheduling else 1
    count = cell.running
    device = Device(cell.device_ms / 1e3)
    added = 0
    warm = counted_steps // 4
    for step in range(counted_steps + warm):
        while len(scheduler.requests) < count:
            added += 1
            # Not all at once: their ends spread over the steps.
            most = OUTPUT_TOKENS if added > count else 1 + added * OUTPUT_TOKENS // count
            prompt = [3 + added % 400] * PROMPT_TOKENS
            scheduler.add_request(make(f"r{added}", prompt, most, slo_ttft_ms=5_000, slo_tpot_ms=200))
        SPENT_S["vllm"] = SPENT_S["waiting"] = 0.0
        began_wall, began = time.perf_counter(), NOW_S()
        output = scheduler.schedule()
        took = NOW_S() - began
        if output.num_scheduled_tokens:
            flying.append((device.begin(), output, sampled(scheduler, output)))
        if flying and (len(flying) >= in_air or not output.num_scheduled_tokens):
            done_s, *outcome = flying.pop(0)
            # The planner plans meanwhile.
            time.sleep(max(0.0, done_s - time.perf_counter()))
            update_began = NOW_S()
            scheduler.update_from_output(*outcome)
            took += NOW_S() - update_began
        if step >= warm and len(output.num_scheduled_tokens) > count * 0.8:
            of = {part: spent * 1e3 for part, spent in SPENT_S.items()}
            wall = (time.perf_counter() - began_wall) * 1e3
            steps.append({"total": took * 1e3, "wall": wall, **of, "rest": took * 1e3 - sum(of.values())})
    return steps


def sampled(scheduler: Any, output: Any) -> ModelRunnerOutput:
    """A token of each request whose prompt is computed."""
    names = list(output.num_scheduled_tokens)
    tokens = [[7] if not scheduler.requests[name].is_prefill_chunk else [] for name in names]
    return ModelRunnerOutput(names, {name: place for place, name in enumerate(names)}, sampled_token_ids=tokens)


def read_arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = lambda text: [int(one) for one in text.split(",")]  # noqa: E731
    parser.add_argument("--running", type=counts, default=[64, 256, 1024])
    parser.add_argument("--steps", type=int, default=400, help="steps of a round; a quarter more come before")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="measure this thread's CPU time: for a machine that is not quiet")
    times = lambda text: [float(one) for one in text.split(",")]  # noqa: E731
    # Longer than vLLM's own scheduling, or asynchronous scheduling could not keep a device busy.
    parser.add_argument("--device-ms", type=times, default=[15, 20, 60], help="how long the device computes a step, for each of --running")
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
