"""What planning adds to a step of vLLM's scheduler, by requests that run: vLLM's own schedulers and the plug-in's, one after the
other on the same requests, with made-up outputs and the real planner; between two steps the engine "computes" (sleeps) while the
planner makes the next plan, as beside a GPU.

    node bench/vllm/step-overhead.ts --running 64,256,1024 --steps 400 --out bench/results/vllm/step-overhead.json
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "plugins" / "vllm"))

import vllm  # noqa: E402
from tests.fake_engine import RequestMaker, engine_config, make_scheduler  # noqa: E402
from tests.planner_process import PlannerProcess  # noqa: E402
from slos_serve_vllm.scheduler import SloAsyncScheduler, SloScheduler  # noqa: E402
from vllm.v1.core.sched.async_scheduler import AsyncScheduler  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.outputs import ModelRunnerOutput  # noqa: E402

PROMPT_TOKENS, OUTPUT_TOKENS = 64, 400
BATCH_TOKENS = 8192


def main() -> None:
    arguments = read_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        planner = PlannerProcess(Path(folder) / "p.sock", "--max-lag", "1000", "--log-level", "warn")
        planner.start()
        try:
            for count in arguments.running:
                for is_async in (False, True):
                    rows.append(compare(count, is_async, arguments, Path(folder), planner.socket))
                    print(json.dumps(rows[-1]), flush=True)
        finally:
            planner.stop()
    if arguments.out:
        result = {"vllm": vllm.__version__, "cpus": os.cpu_count(), "load": os.getloadavg(), "rows": rows}
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


def compare(count: int, is_async: bool, arguments: Any, folder: Path, socket: Path) -> dict[str, Any]:
    """Rounds of both, by turns: what slows the machine down meets both."""
    times: dict[str, list[float]] = {"own": [], "planned": []}
    counters: dict[str, int] = {}
    for turn in range(arguments.rounds):
        for who in ("own", "planned") if turn % 2 == 0 else ("planned", "own"):
            settings = {"socket": str(socket), "start": False, "deadline_ms": 5_000, "name": f"{count}-{is_async}-{turn}"}
            kind = {"own": (Scheduler, AsyncScheduler), "planned": (SloScheduler, SloAsyncScheduler)}[who][is_async]
            config = engine_config(folder, is_async, 0, 2 if is_async else 1, max_num_seqs=count, batch_tokens=BATCH_TOKENS)
            scheduler = make_scheduler(config, count * 40, settings, kind)
            times[who] += step_times(scheduler, RequestMaker(config), count, arguments)
            if who == "planned":
                counters = vars(scheduler.conductor.counters)
            scheduler.shutdown()
    added = {name: round(quantile(times["planned"], at) - quantile(times["own"], at), 3) for name, at in QUANTILES.items()}
    return {
        **{"running": count, "async": is_async, "steps": len(times["planned"]), "addedMs": added},
        "ownMs": {name: round(quantile(times["own"], at), 3) for name, at in QUANTILES.items()},
        "plannedMs": {name: round(quantile(times["planned"], at), 3) for name, at in QUANTILES.items()},
        "counters": dict(counters),
    }


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def quantile(values: list[float], at: float) -> float:
    return sorted(values)[min(len(values) - 1, int(at * len(values)))]


def step_times(scheduler: Any, make: RequestMaker, count: int, arguments: Any) -> list[float]:
    """ms of schedule() and update_from_output() together, once all run; ended requests are followed by others."""
    times: list[float] = []
    flying: list[Any] = []
    in_air = 2 if scheduler.vllm_config.scheduler_config.async_scheduling else 1
    added = 0
    warm = arguments.steps // 4
    for step in range(arguments.steps + warm):
        while len(scheduler.requests) < count:
            added += 1
            # Not all at once: their ends spread over the steps.
            most = OUTPUT_TOKENS if added > count else 1 + added * OUTPUT_TOKENS // count
            prompt = [3 + added % 400] * PROMPT_TOKENS
            scheduler.add_request(make(f"r{added}", prompt, most, slo_ttft_ms=5_000, slo_tpot_ms=200))
        began = time.perf_counter()
        output = scheduler.schedule()
        took = time.perf_counter() - began
        if output.num_scheduled_tokens:
            names = list(output.num_scheduled_tokens)
            samples = [[7] if not scheduler.requests[name].is_prefill_chunk else [] for name in names]
            index = {name: place for place, name in enumerate(names)}
            flying.append((output, ModelRunnerOutput(names, index, sampled_token_ids=samples)))
        # The engine computes, and the planner plans.
        time.sleep(arguments.gap_ms / 1e3)
        if flying and (len(flying) >= in_air or not output.num_scheduled_tokens):
            began = time.perf_counter()
            scheduler.update_from_output(*flying.pop(0))
            took += time.perf_counter() - began
        if step >= warm and len(output.num_scheduled_tokens) > count * 0.8:
            times.append(took * 1e3)
    return times


def read_arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = lambda text: [int(one) for one in text.split(",")]  # noqa: E731
    parser.add_argument("--running", type=counts, default=[64, 256, 1024])
    parser.add_argument("--steps", type=int, default=400, help="counted steps of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--gap-ms", type=float, default=15.0, help="how long the engine computes a step")
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
