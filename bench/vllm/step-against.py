"""What another checkout's plug-in adds to a step of vLLM's scheduler, beside what this one's adds: vLLM's own scheduler and the
two take turns step by step in one process, so that what slows the machine down, or empties its caches, meets all three.

    node bench/vllm/step-overhead.ts --against OTHER/plugins/vllm/slos_serve_vllm --running 64 --out FILE

µs of this thread's CPU time, in medians over the steps. Both plug-ins must speak one version of the planner's protocol.
"""

import argparse
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def loaded(name: str, file: Path, **more: Any) -> Any:
    spec = importlib.util.spec_from_file_location(name, file, **more)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


overhead = loaded("step_overhead", HERE / "step-overhead.py")
SPENT_S = overhead.SPENT_S


def kinds_of(package: str, is_async: bool) -> Any:
    """That plug-in's scheduler, over vLLM's, both timed."""
    client = importlib.import_module(f"{package}.client").Client
    client.receive = overhead.counted(client.receive, "waiting")
    planned = importlib.import_module(f"{package}.scheduler").PlannedScheduler
    vllms = overhead.AsyncScheduler if is_async else overhead.Scheduler
    return type("Planned", (planned, overhead.Counted, vllms), {})


class Engine:
    """One scheduler with a device of its own."""

    def __init__(self, name: str, kind: Any, arguments: Any, folder: Path, socket: Path) -> None:
        self.steps: list[dict[str, float]] = []
        settings = {"socket": str(socket), "start": False, "deadline_ms": 5_000, "name": name}
        count, self._in_air = arguments.running, 2 if arguments.is_async else 1
        config = overhead.engine_config(
            folder, arguments.is_async, 0, self._in_air, max_num_seqs=count, batch_tokens=overhead.BATCH_TOKENS
        )
        self.scheduler = overhead.make_scheduler(config, count * 40, settings, kind)
        self._make = overhead.RequestMaker(config)
        self._device = overhead.Device(arguments.device_ms / 1e3)
        self._count, self._added, self._flying = count, 0, list[Any]()

    def step(self, is_counted: bool) -> None:
        scheduler, count = self.scheduler, self._count
        while len(scheduler.requests) < count:
            self._added += 1
            most = overhead.OUTPUT_TOKENS if self._added > count else 1 + self._added * overhead.OUTPUT_TOKENS // count
            prompt = [3 + self._added % 400] * overhead.PROMPT_TOKENS
            scheduler.add_request(self._make(f"r{self._added}", prompt, most, slo_ttft_ms=5_000, slo_tpot_ms=200))
        SPENT_S["vllm"] = SPENT_S["waiting"] = 0.0
        began_s = time.thread_time()
        output = scheduler.schedule()
        took_s = time.thread_time() - began_s
        if output.num_scheduled_tokens:
            self._flying.append((self._device.begin(), output, overhead.sampled(scheduler, output)))
        if self._flying and (len(self._flying) >= self._in_air or not output.num_scheduled_tokens):
            done_s, *outcome = self._flying.pop(0)
            time.sleep(max(0.0, done_s - time.perf_counter()))
            began_s = time.thread_time()
            scheduler.update_from_output(*outcome)
            took_s += time.thread_time() - began_s
        if is_counted and len(output.num_scheduled_tokens) > count * 0.8:
            self.steps.append({"total": took_s, "vllm": SPENT_S["vllm"], "plugIn": took_s - SPENT_S["vllm"]})


def main() -> None:
    arguments = read_arguments()
    overhead.NOW_S = time.thread_time
    loaded("other_plug_in", arguments.against / "__init__.py", submodule_search_locations=[str(arguments.against)])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        planner = overhead.PlannerProcess(Path(folder) / "p.sock", "--max-lag", "1000", "--log-level", "error")
        planner.start()
        try:
            for turn in range(2 * arguments.rounds):
                arguments.is_async = turn % 2 == 1
                rows.append(compare(arguments, Path(folder), planner.socket, turn))
                print(json.dumps(rows[-1]), flush=True)
        finally:
            planner.stop()
    if arguments.out:
        result = {"vllm": overhead.vllm.__version__, "cpus": os.cpu_count(), "load": os.getloadavg(), "rows": rows}
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


def compare(arguments: Any, folder: Path, socket: Path, turn: int) -> dict[str, Any]:
    kinds = {
        "own": overhead.KINDS["own"][arguments.is_async],
        "this": kinds_of("slos_serve_vllm", arguments.is_async),
        "other": kinds_of("other_plug_in", arguments.is_async),
    }
    engines = [Engine(f"{who}-{turn}", kind, arguments, folder, socket) for who, kind in kinds.items()]
    overhead.freeze_gc_heap()
    for step in range(arguments.warm + arguments.steps):
        first = step % len(engines)
        for engine in engines[first:] + engines[:first]:
            engine.step(step >= arguments.warm)
    medians = {}
    for who, engine in zip(kinds, engines, strict=True):
        parts = {part: [step[part] for step in engine.steps] for part in ("total", "vllm", "plugIn")}
        medians[who] = {part: overhead.quantile(values, 0.5) * 1e6 for part, values in parts.items()}
        engine.scheduler.shutdown()
    row: dict[str, Any] = {"running": arguments.running, "async": arguments.is_async, "deviceMs": arguments.device_ms}
    for who in ("this", "other"):
        row[f"{who}AddsUs"] = {part: round(medians[who][part] - medians["own"][part], 1) for part in medians[who]}
    return {**row, "ownUs": round(medians["own"]["total"], 1), "steps": [len(engine.steps) for engine in engines]}


def read_arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="folder of the other checkout's package")
    parser.add_argument("--running", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--warm", type=int, default=100, help="steps that go before")
    parser.add_argument("--rounds", type=int, default=3, help="of both ways of scheduling")
    parser.add_argument("--device-ms", type=float, default=10)
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
