"""Requests of more adapters (LoRA) than vLLM has places for in a step: all run in turns, whoever schedules them."""

import random
from pathlib import Path
from typing import Any

import pytest

from .fake_engine import FakeEngine, RequestMaker, engine_config, make_scheduler

PLACES, ADAPTERS = 2, 5


class Watched(FakeEngine):
    """Counts the adapters of each step."""

    def step(self) -> None:
        ran = len(self.ran)
        requests = dict(self.scheduler.requests)
        super().step()
        for step in self.ran[ran:]:
            loras = [requests[name].lora_request for name in step if name in requests]
            assert len({lora.lora_int_id for lora in loras if lora is not None}) <= PLACES


@pytest.fixture(params=[False, True], ids=["synchronous", "asynchronous"])
def engine(request: pytest.FixtureRequest, folder: Path, settings: dict[str, Any]) -> Watched:
    config = engine_config(folder, request.param, 0, 2 if request.param else 1, max_loras=PLACES)
    scheduler = make_scheduler(config, 200, settings)
    scheduler.conductor.patience.is_worth_another = lambda planned_s: False  # type: ignore[method-assign]
    engine = Watched(scheduler, 2 if request.param else 1, seed=1)
    make, chance = RequestMaker(config), random.Random(1)
    for number in range(30):
        prompt = [chance.randrange(3, 500) for _ in range(40)]
        slo = {"slo_ttft_ms": 2_000, "slo_tpot_ms": 80}
        engine.add(make(f"r{number}", prompt, 60, number % ADAPTERS + 1, **slo))
    return engine


def test_more_adapters_run_than_fit_a_step(engine: Watched) -> None:
    for _ in range(60):
        engine.step()
    # vLLM's own scheduling would let no third adapter begin before the first ones have ended.
    running = {one.lora_request.lora_int_id for one in engine.scheduler.running if one.lora_request}
    assert len(running) > PLACES
    assert not engine.ended
    engine.run_until_idle()
    counters = engine.scheduler.conductor.counters
    assert (counters.mismatches, counters.own_steps) == (0, 0)
    assert engine.ended == set(engine.tokens)
    engine.scheduler.shutdown()


def test_vllm_goes_on_by_itself_with_all_that_run(engine: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(60):
        engine.step()
    conductor = engine.scheduler.conductor
    with monkeypatch.context() as patch:
        patch.setattr(conductor, "plan_of_step", lambda: None)
        for _ in range(40):
            engine.step()
    assert conductor.counters.own_steps >= 38
    engine.run_until_idle()
    assert conductor.counters.mismatches == 0
    assert engine.ended == set(engine.tokens)
    assert {len(tokens) for tokens in engine.tokens.values()} == {60}
    engine.scheduler.shutdown()
