"""A planner that is gone, late or wrong: vLLM schedules by itself within the same step, and no request is lost."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slos_serve_vllm import spawn
from slos_serve_vllm.frames import column

from .conftest import settings_for
from .fake_engine import FakeEngine, RequestMaker, engine_config, make_scheduler
from .fake_planner import FakePlanner, Peer, Script
from .planner_process import COMMAND, PlannerProcess
from .waits import LONG_S, wait_until

TOKENS = 40
STARVED_S = 0.2


def engine_with(folder: Path, settings: dict[str, Any], count: int = 12, **more: Any) -> FakeEngine:
    """An engine with requests that all want as many tokens."""
    is_async = more.pop("is_async", False)
    in_air = 2 if is_async else 1
    config = engine_config(folder, is_async, 0, in_air, **more)
    engine = FakeEngine(make_scheduler(config, 400, settings), in_air, seed=1)
    make = RequestMaker(config)
    for number in range(count):
        engine.add(make(f"r{number}", [3 + number] * 60, TOKENS, slo_ttft_ms=500, slo_tpot_ms=50))
    return engine


def finish(engine: FakeEngine) -> None:
    """All requests come to their ends, with all of their tokens."""
    engine.run_until_idle()
    assert {name: len(tokens) for name, tokens in engine.tokens.items()} == dict.fromkeys(
        engine.tokens, TOKENS
    )


@pytest.mark.parametrize("is_async", [False, True])
def test_a_planner_that_is_killed_and_comes_back(folder: Path, is_async: bool) -> None:
    process = PlannerProcess(folder / "p.sock")
    process.start()
    engine = engine_with(folder, settings_for(process), is_async=is_async)
    counters = engine.scheduler.conductor.counters
    for _ in range(8):
        engine.step()
    assert (counters.planned_steps, counters.own_steps) == (8, 0)
    process.kill()
    for _ in range(8):
        engine.step()
    assert counters.own_steps >= 7
    # A killed planner leaves its socket; the next one takes it over.
    process.start()
    assert engine.scheduler.conductor.wait_for_planner(LONG_S)
    own = counters.own_steps
    finish(engine)
    assert (counters.connections, counters.own_steps) == (2, own)
    assert counters.planned_steps > 16
    assert counters.mismatches == 0
    engine.scheduler.shutdown()
    process.stop()


def answers(*plans: dict[str, Any]) -> Script:
    """Greets, and answers steps with these, the last one again and again."""

    def script(peer: Peer) -> None:
        peer.greet()
        count = 0
        while (message := peer.hear()) is not None:
            peer.say({"type": "plan", "seq": message["seq"], **plans[min(count, len(plans) - 1)]})
            count += 1

    return script


def silent(peer: Peer) -> None:
    """Greets, reads, and never answers."""
    peer.greet()
    while peer.hear() is not None:
        pass


def be_starved_soon(engine: FakeEngine) -> None:
    """Where its plans run nothing. Not from the start: a planner on a busy machine may not greet so soon."""
    engine.scheduler.conductor._hang_s = STARVED_S


NOTHING = {"batch": 0, "predictedUs": 0, "ids": column([]), "positions": column([]), "tokens": column([])}
STRANGERS = {
    "batch": 1,
    "predictedUs": 9,
    "ids": column([77]),
    "positions": column([0]),
    "tokens": column([5]),
}


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Any]:
    planners: list[FakePlanner] = []

    def at(script: Script, deadline_ms: float = LONG_S * 1e3) -> dict[str, Any]:
        path = tmp_path / f"{len(planners)}.sock"
        planners.append(FakePlanner(path, script))
        patient = {"start_seconds": LONG_S, "hang_seconds": LONG_S}
        return {"socket": str(path), "start": False, "deadline_ms": deadline_ms, **patient}

    yield at
    for planner in planners:
        planner.close()


@pytest.mark.parametrize(
    ("script", "counter"),
    [
        (silent, "late_plans"),
        (lambda peer: peer.greet(), "connections"),
        (answers({"type": "goodbye", "message": "it is being shut down"}), "connections"),
        (answers({"type": "ready"}), "connections"),
        (answers({"batch": 1}), "connections"),
        (answers({**STRANGERS, "tokens": column([1, 2])}), "connections"),
        (answers({**STRANGERS, "tokens": column([0])}), "connections"),
        (answers({**STRANGERS, "ids": "77"}), "connections"),
        (answers({**STRANGERS, "seq": -1}), "late_plans"),
    ],
)
def test_a_planner_that_is_late_or_wrong_costs_no_request(
    folder: Path, listen: Any, script: Script, counter: str
) -> None:
    # What is wrong is heard, however late; what is never there is not waited for.
    settings = listen(script, deadline_ms=2) if counter == "late_plans" else listen(script)
    engine = engine_with(folder, settings)
    finish(engine)
    counters = engine.scheduler.conductor.counters
    assert counters.planned_steps == 0
    assert counters.own_steps == len(engine.ran)
    assert getattr(counters, counter) > 0


@pytest.mark.parametrize("plan", [NOTHING, STRANGERS], ids=["nothing", "strangers"])
def test_a_planner_that_plans_nothing_for_ever_is_overruled(
    folder: Path, listen: Any, plan: dict[str, Any]
) -> None:
    engine = engine_with(folder, listen(answers(plan)), count=1)
    be_starved_soon(engine)

    def ends_with_this_step() -> bool:
        engine.step()
        return engine.ended == {"r0"}

    wait_until(ends_with_this_step)
    counters = engine.scheduler.conductor.counters
    assert counters.starved_steps == counters.own_steps == TOKENS


def test_an_engine_that_had_nothing_to_do_for_long_goes_by_its_plan(
    folder: Path, settings: dict[str, Any]
) -> None:
    engine = engine_with(folder, settings, count=1)
    be_starved_soon(engine)
    finish(engine)
    time.sleep(2 * STARVED_S)
    engine.add(RequestMaker(engine.scheduler.vllm_config)("late", [9] * 60, TOKENS))
    finish(engine)
    counters = engine.scheduler.conductor.counters
    assert (counters.own_steps, counters.starved_steps) == (0, 0)
    engine.scheduler.shutdown()


def test_without_any_planner_it_is_vllms_own_order(folder: Path) -> None:
    settings = {"socket": str(folder / "none.sock"), "start": False, "start_seconds": 0.1}
    engine = engine_with(folder, settings, count=30)
    finish(engine)
    first = [next(at for at, ran in enumerate(engine.ran) if f"r{number}" in ran) for number in range(30)]
    assert first == sorted(first)


def test_starts_a_planner_and_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "socket": str(folder / "p.sock"),
        "command": COMMAND,
        "deadline_ms": LONG_S * 1e3,
        "start_seconds": LONG_S,
        "hang_seconds": LONG_S,
    }
    # One that is killed, since it does not end soon, leaves its socket.
    monkeypatch.setattr(spawn, "_STOP_S", LONG_S)
    engine = engine_with(folder, settings)
    finish(engine)
    assert engine.scheduler.conductor.counters.planned_steps == len(engine.ran)
    engine.scheduler.shutdown()
    assert not (folder / "p.sock").exists()
