"""Which share of requests has every token in time, under vLLM's own schedulers and under ours, on the same arrivals.

One model a call; `node bench/vllm/attain.ts` calls it, and makes tables and charts of what it appends to --out. What is there
already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import CLOCK, DEVICES, WAITS_S, Engine, Planner, count_waits
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from workload import MIXES, Arrival, Kind, Mix, Speed, arrivals

POLICIES = {"slos-serve": "slos-serve", "edf-drop": "edf-drop"}


@dataclass(frozen=True)
class System:
    """What is compared: a scheduler, and where it has one a budget of tokens a step."""

    name: str
    budget: int

    @property
    def label(self) -> str:
        return self.name if self.name in POLICIES else f"{self.name}-{self.budget}"


class Watched:
    """A request under way, judged token by token as the planner judges."""

    def __init__(self, arrival: Arrival, at_s: float, slo: tuple[float, float]) -> None:
        self.kind = arrival.kind
        self.at_s = at_s
        self.due_s = at_s + slo[0] / 1e3
        self.tpot_s = slo[1] / 1e3
        self.tokens = 0
        self.in_time = True
        self.first_s: float | None = None
        self.ended = False

    @property
    def last_due_s(self) -> float:
        return self.due_s + max(0, self.kind.output - self.tokens - 1) * self.tpot_s

    def saw(self, now_s: float) -> None:
        if now_s > self.due_s:
            self.in_time = False
        if self.first_s is None:
            self.first_s = now_s
            self.due_s = max(self.due_s, now_s)
        self.tokens += 1
        self.due_s += self.tpot_s


class Window:
    """One stretch of arrivals under one scheduler."""

    _number = 0

    def __init__(self, engine: Engine, slos: dict[str, tuple[float, float]]) -> None:
        self._engine = engine
        self._slos = slos
        self._live: dict[str, Watched] = {}
        self._all: list[Watched] = []
        self.steps = 0

    def run(self, load: list[Arrival]) -> list[Watched]:
        """Until no request can be in time any more; what is left then is given up."""
        llm = self._engine.llm
        base_s = CLOCK() + 0.05
        coming = iter(load)
        following = next(coming, None)
        while following is not None or llm.has_unfinished_requests():
            now_s = CLOCK()
            while following is not None and base_s + following.at_s <= now_s:
                self._add(following, base_s + following.at_s)
                following = next(coming, None)
            if not llm.has_unfinished_requests():
                if following is not None:
                    CLOCK.jump_to(base_s + following.at_s)
                continue
            self._step()
            if following is None and CLOCK() > max(one.last_due_s for one in self._live.values() or self._all):
                break
        llm.abort_request(list(self._live))
        return self._all

    def _add(self, arrival: Arrival, at_s: float) -> None:
        Window._number += 1
        name = f"r{Window._number}"
        slo = self._slos[arrival.kind.name]
        params = SamplingParams(
            temperature=0.0,
            max_tokens=arrival.kind.output,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
            detokenize=False,
            extra_args={"slo_class": arrival.kind.name},
        )
        # Where priorities are read, the lowest goes first: the first token's deadline, in µs.
        deadline = int((at_s + slo[0] / 1e3) * 1e6)
        waited_s = CLOCK() - at_s
        prompt = {"prompt_token_ids": arrival.prompt}
        self._engine.llm.add_request(name, prompt, params, arrival_time=time.time() - waited_s, priority=deadline)
        self._live[name] = watched = Watched(arrival, at_s, slo)
        self._all.append(watched)

    def _step(self) -> None:
        outputs = self._engine.llm.step()
        self.steps += 1
        now_s = CLOCK()
        for output in outputs:
            watched = self._live[output.request_id]
            for _ in output.outputs[0].token_ids:
                watched.saw(now_s)
            if output.finished:
                watched.ended = True
                del self._live[output.request_id]


def calibrate(engine: Engine, mix: Mix, budget: int) -> Speed:
    """With the engine to itself, vLLM's own scheduler; the shortest of a few tries each."""
    engine.use(engine.fcfs(), budget)
    prompts = {kind.prompt: min(alone(engine, [kind.prompt]) for _ in range(4)) for kind in mix.kinds}
    return Speed(mix, prompts, min(alone(engine, [16] * mix.decodes, decode=True) for _ in range(3)))


def alone(engine: Engine, prompts: list[int], decode: bool = False) -> float:
    """ms until these prompts are computed, or of a decode step after that (the median of eight)."""
    llm = engine.llm
    for number, size in enumerate(prompts):
        params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, detokenize=False)
        tokens = [100 + (number * 7919 + place * 104729) % 40_000 for place in range(size)]
        llm.add_request(f"c{time.monotonic_ns()}", {"prompt_token_ids": tokens}, params)
    began_s = CLOCK()
    ends = []
    while llm.has_unfinished_requests():
        # Where steps are scheduled before the last one has landed, the first call brings nothing.
        if llm.step():
            ends.append((CLOCK() - began_s) * 1e3)
    steps = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return statistics.median(steps[1:9]) if decode else ends[0]


def classes_file(path: Path, speed: Speed) -> Path:
    lines = [f"  {name}: {{ttft: {ttft:.3f}ms, tpot: {tpot:.3f}ms}}" for name, (ttft, tpot) in speed.slos.items()]
    path.write_text("\n".join(["default: chat", "classes:", *lines, ""]))
    return path


def row_of(kinds: tuple[Kind, ...], watched: list[Watched], window: Window, took_s: float, scheduler: Any) -> dict[str, Any]:
    firsts = sorted(one.first_s - one.at_s for one in watched if one.first_s is not None)
    kept = [one for one in watched if one.ended and one.in_time]
    row: dict[str, Any] = {
        "requests": len(watched),
        "kept": len(kept),
        "classes": {
            kind.name: {
                "requests": sum(one.kind is kind for one in watched),
                "kept": sum(one.kind is kind for one in kept),
            }
            for kind in kinds
        },
        "ttft_p50_s": quantile(firsts, 0.5),
        "ttft_p99_s": quantile(firsts, 0.99),
        "tokens": sum(one.tokens for one in watched),
        "took_s": round(took_s, 3),
        "steps": window.steps,
    }
    if hasattr(scheduler, "conductor"):
        waits = sorted(WAITS_S)
        row["planning"] = {
            **asdict(scheduler.conductor.counters),
            "wait_p50_ms": quantile(waits, 0.5, 1e3),
            "wait_p99_ms": quantile(waits, 0.99, 1e3),
        }
    return row


def quantile(values: list[float], share: float, scale: float = 1.0) -> float | None:
    return round(values[min(len(values) - 1, int(share * len(values)))] * scale, 4) if values else None


class Rows:
    """What was measured, a JSON object a line; an interrupted run goes on where it was."""

    def __init__(self, path: Path, model: str) -> None:
        self._path = path
        self._model = model
        lines = path.read_text().splitlines() if path.exists() else []
        self._rows = [row for row in map(json.loads, lines) if row["model"] == model]

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        return next((row for row in self._rows if all(row.get(key) == value for key, value in wanted.items())), None)

    def add(self, **row: Any) -> dict[str, Any]:
        whole = {"model": self._model, **row}
        self._rows.append(whole)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(whole) + "\n")
        return whole


def speed_of(rows: Rows, engine: Engine, mix: Mix, budget: int) -> Speed:
    """As it was first measured: later runs have the same objectives and rates."""
    found = rows.find(kind="speed")
    if found is None:
        speed = calibrate(engine, mix, budget)
        found = rows.add(kind="speed", prompt_ms=speed.prompt_ms, decodes=mix.decodes, decode_ms=speed.decode_ms)
    return Speed(mix, {int(size): ms for size, ms in found["prompt_ms"].items()}, found["decode_ms"])


def measure(options: argparse.Namespace) -> None:
    rows = Rows(options.out, options.name)
    end_s = time.monotonic() + options.time_budget_min * 60
    largest = DEVICES[options.device].largest_budget
    engine = Engine(options.model, options.load_format, options.device, options.asynchronous)
    speed = speed_of(rows, engine, MIXES[options.device], largest)
    kinds = speed.mix.kinds
    slos = {name: tuple(round(ms) for ms in slo) for name, slo in speed.slos.items()}
    # A window has some 200 requests at the highest rates.
    seconds = options.seconds or max(60.0, round(200 / speed.capacity))
    print(f"{options.name}: objectives (ms) {slos}, about {speed.capacity:.2f} requests/s", flush=True)
    systems = [
        *(System(name, budget) for name in ("fcfs", "priority") for budget in options.budgets),
        *(System(name, largest) for name in POLICIES),
    ]
    systems = [system for system in systems if system.name in (options.systems or [system.name])]
    policies = {name: policy for name, policy in POLICIES.items() if any(name == system.name for system in systems)}
    with tempfile.TemporaryDirectory(prefix="slos-serve-") as folder:
        classes = classes_file(Path(folder) / "classes.yaml", speed)
        planners = {name: Planner(Path(folder), policy, classes, options.record) for name, policy in policies.items()}
        try:
            schedulers = {
                "fcfs": engine.fcfs(),
                "priority": engine.by_priority(),
                **{name: engine.planned(planner.socket, options.name) for name, planner in planners.items()},
            }
            for name in policies:
                # As a server that has been up for a while: step times and lengths of answers are known.
                engine.use(schedulers[name], largest)
                Window(engine, speed.slos).run(arrivals(kinds, 0.5 * speed.capacity, options.train_seconds, -1))
            for seed in options.seeds:
                for relative in options.rates:
                    order = systems[seed % len(systems):] + systems[: seed % len(systems)]
                    for system in order:
                        if rows.find(kind="window", seed=seed, relative=relative, system=system.label) is not None:
                            continue
                        if time.monotonic() > end_s:
                            print("out of time; run it again to go on", flush=True)
                            return
                        run_one(engine, rows, speed, schedulers[system.name], system, seed, relative, seconds)
        finally:
            for planner in planners.values():
                planner.stop()


def run_one(
    engine: Engine, rows: Rows, speed: Speed, scheduler: Any, system: System, seed: int, relative: float, seconds: float
) -> None:
    engine.use(scheduler, system.budget)
    WAITS_S.clear()
    window = Window(engine, speed.slos)
    began_s = CLOCK()
    rate = relative * speed.capacity
    watched = window.run(arrivals(speed.mix.kinds, rate, seconds, seed))
    row = row_of(speed.mix.kinds, watched, window, CLOCK() - began_s, scheduler)
    rows.add(kind="window", seed=seed, relative=relative, rate=round(rate, 3), system=system.label, seconds=seconds, **row)
    share = row["kept"] / max(1, row["requests"])
    print(f"x{relative} ({rate:.2f}/s) seed {seed} {system.label:14} {share:6.1%} of {row['requests']}", flush=True)


def numbers(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--name", required=True, help="what rows call it")
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", type=numbers(float), default=[0.4, 0.55, 0.7, 0.85, 1.0])
    parser.add_argument("--seeds", type=numbers(int), default=[1, 2, 3])
    parser.add_argument("--budgets", type=numbers(int), help="default: 64,256,2048 on a processor, 2048,8192 on a GPU")
    parser.add_argument("--systems", type=numbers(str), help="default: fcfs,priority and all through the plug-in")
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    parser.add_argument("--asynchronous", action="store_true", help="vLLM schedules a step before the last one has landed")
    parser.add_argument("--train-seconds", type=float, default=40.0, help="of the window that planners see first")
    parser.add_argument("--seconds", type=float, default=0.0, help="of a window; default: 60, longer where the model is slow")
    parser.add_argument("--time-budget-min", type=float, default=1e6)
    parser.add_argument("--record", type=Path, help="a folder for recordings of the planners (slos-serve planner replay)")
    parser.add_argument("--free-plans", action="store_true", help="what steps wait for plans does not pass on the clock")
    options = parser.parse_args()
    options.budgets = options.budgets or ([64, 256, 2048] if options.device == "cpu" else [2048, 8192])
    if options.device == "gpu":
        CLOCK.follow_the_wall()
    if not options.free_plans:
        count_waits(on_the_clock=options.device == "cpu")
    measure(options)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # vLLM's own threads and workers are in no hurry to end.
    import os

    os._exit(code)
