"""Steps per second of a real vLLM engine on a processor, with its own scheduler and with the plug-in's, by requests that run: the
same engine, whose scheduler is changed between windows that take turns. All requests decode; none comes or ends within a window.

    node bench/vllm/step-overhead.ts --real --out bench/results/vllm/steps-per-second.json

Resumes: windows that --out has are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import CLOCK, DEVICES, Engine, Planner
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.utils.gc_utils import freeze_gc_heap

PROMPT_TOKENS = 32
WARM_STEPS = 20


def main() -> None:
    arguments = read_arguments()
    rows = json.loads(Path(arguments.out).read_text())["rows"] if Path(arguments.out).exists() else []
    CLOCK.follow_the_wall()
    DEVICES["cpu"] = replace(DEVICES["cpu"], max_sequences=max(arguments.running))
    engine = Engine(arguments.model, "dummy", "cpu", is_async=False)
    with tempfile.TemporaryDirectory() as folder:
        classes = Path(folder) / "classes.yaml"
        classes.write_text("default: chat\nclasses:\n  chat: {ttft: 60s, tpot: 5s}\n")
        planner = Planner(Path(folder), "slos-serve", classes)
        try:
            schedulers = {"own": engine.fcfs(), "planned": engine.planned(planner.socket, "steps")}
            freeze_gc_heap()
            for count in arguments.running:
                measure(engine, schedulers, count, arguments, rows)
        finally:
            planner.stop()


def measure(engine: Engine, schedulers: dict[str, Any], count: int, arguments: Any, rows: list[dict[str, Any]]) -> None:
    """Pairs of windows: what slows the machine down meets both."""
    row = next((one for one in rows if one["running"] == count), None)
    if row is None:
        row = {"running": count, "steps": arguments.steps, "stepsPerSec": []}
        rows.append(row)
    for pair in range(len(row["stepsPerSec"]), arguments.pairs):
        measured = {}
        for who in ("own", "planned") if pair % 2 == 0 else ("planned", "own"):
            engine.use(schedulers[who], DEVICES["cpu"].largest_budget)
            measured[who] = round(window(engine, count, arguments.steps), 3)
        row["stepsPerSec"].append(measured)
        ratios = [one["planned"] / one["own"] for one in row["stepsPerSec"]]
        row["ratio"] = {"median": round(statistics.median(ratios), 4), "least": round(min(ratios), 4), "most": round(max(ratios), 4)}
        row["mismatches"] = schedulers["planned"].conductor.counters.mismatches
        row["ownSteps"] = schedulers["planned"].conductor.counters.own_steps
        print(json.dumps({**row, "stepsPerSec": measured}), flush=True)
        if arguments.out:
            result = {"cpus": os.cpu_count(), "load": os.getloadavg(), "rows": rows}
            Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


def window(engine: Engine, count: int, steps: int) -> float:
    """Steps per second while so many requests decode."""
    llm = engine.llm
    most = 2 * WARM_STEPS + steps + count
    params = SamplingParams(
        temperature=0.0, max_tokens=most, ignore_eos=True, output_kind=RequestOutputKind.DELTA, detokenize=False
    )
    names = [f"s{time.monotonic_ns()}-{number}" for number in range(count)]
    for number, name in enumerate(names):
        llm.add_request(name, {"prompt_token_ids": [3 + (number * 31 + place) % 400 for place in range(PROMPT_TOKENS)]}, params)
    started: set[str] = set()
    while len(started) < count:
        started |= {output.request_id for output in llm.step()}
    for _ in range(WARM_STEPS):
        llm.step()
    began_s = time.perf_counter()
    for _ in range(steps):
        outputs = llm.step()
        assert len(outputs) == count, f"a step of {len(outputs)} requests"
    took_s = time.perf_counter() - began_s
    llm.abort_request(names)
    return steps / took_s


def read_arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = lambda text: [int(one) for one in text.split(",")]  # noqa: E731
    parser.add_argument("--model", required=True, help="a folder, of make-model.py")
    parser.add_argument("--running", type=counts, default=[64, 256])
    parser.add_argument("--steps", type=int, default=150, help="of a window")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
