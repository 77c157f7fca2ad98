"""A real vLLM with made-up weights: its tokens are those of vLLM's own schedulers, whatever the plan."""

from pathlib import Path
from typing import Any

import pytest
from vllm.lora.request import LoRARequest

from slos_serve_vllm.scheduler import SloAsyncScheduler, SloScheduler

from .answers import Answers, check_same
from .conftest import settings_for
from .planner_process import PlannerProcess
from .real_engine import allow_async, check_planned, engine_of, give, run, scheduler_of
from .tiny_lora import write_tiny_lora
from .waits import LONG_S

pytestmark = pytest.mark.usefixtures("in_this_process")


def test_the_same_tokens_as_planned(model: str, own_answers: Answers, settings: dict[str, Any]) -> None:
    engine = engine_of(model, settings)
    assert type(scheduler_of(engine)) is SloScheduler
    give(engine, prompt_logprobs=1)
    check_same(run(engine), own_answers)
    check_planned(engine)


def test_the_same_tokens_with_asynchronous_scheduling(
    model: str, own_answers: Answers, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_async(monkeypatch)
    engine = engine_of(model, settings)
    assert type(scheduler_of(engine)) is SloAsyncScheduler
    give(engine)
    check_same(run(engine), own_answers)
    check_planned(engine)


def test_the_same_tokens_of_more_adapters_than_fit_a_step(
    model: str, settings: dict[str, Any], folder: Path
) -> None:
    loras = [LoRARequest(f"a{n}", n, write_tiny_lora(folder / f"a{n}", n)) for n in range(1, 5)]
    answers: list[Answers] = []
    for given in (None, settings):
        engine = engine_of(model, given, enable_lora=True, max_loras=2, max_lora_rank=8)
        give(engine, 1, loras)
        answers.append(run(engine))
    check_same(answers[1], answers[0])
    check_planned(engine)


def test_a_planner_killed_and_restarted_changes_no_token(
    model: str, own_answers: Answers, folder: Path
) -> None:
    process = PlannerProcess(folder / "p.sock")
    process.start()
    engine = engine_of(model, settings_for(process))
    counters = scheduler_of(engine).conductor.counters
    give(engine)
    answers = run(engine, 15)
    process.kill()
    run(engine, 15, answers)
    # The plan of one more step may have been on its way.
    assert counters.planned_steps in (15, 16)
    assert counters.own_steps == 30 - counters.planned_steps
    assert counters.connections == 1
    process.start()
    assert scheduler_of(engine).conductor.wait_for_planner(LONG_S)
    run(engine, answers=answers)
    check_same(answers, own_answers)
    assert counters.connections == 2
    assert counters.planned_steps > 16
    assert counters.mismatches == 0
    process.stop()
