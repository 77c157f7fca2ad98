"""vLLM's real schedulers with made-up outputs: what they schedule is the plan, whatever happens to the requests."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .fake_engine import CLOCK, FakeEngine, RequestMaker, engine_config, give_encoder, make_scheduler
from .pictures import with_pictures
from .watch import watch


@dataclass(frozen=True)
class Case:
    """One kind of life that requests have."""

    name: str
    is_async: bool = False
    in_air: int = 1
    """Steps that the engine has in the air at once: the plan is made for the one after them."""
    is_v2: bool = False
    """vLLM's second model runner, which GPUs have."""
    blocks: int = 400
    abort: float = 0.0
    stop: float = 0.0
    drafts: int = 0
    has_draft_model: bool = False
    """What drafts is a model, which takes tokens of a step for itself."""
    prefixes: bool = True
    batch_tokens: int = 512
    renews: bool = False
    """Whatever arrives, the plan that does not know of it is asked for anew."""
    adapters: int = 0
    """Requests are of so many adapters or of none, of which a step has two at most."""
    logprobs: float = 0.0
    """Chance that the log-probabilities of a prompt are asked for."""
    encoder_tokens: int = 0
    """Of pictures in prompts, so many may be encoded in a step; 0: there are none."""
    cuts_pictures: bool = True
    layers: tuple[str, ...] = ("full",)
    """Kinds of layers that keep KV."""
    steps: int = 2_000


CASES = [
    Case("plain"),
    Case("aborts and stops", abort=0.2, stop=0.03),
    Case("few blocks", blocks=70, abort=0.05, stop=0.01),
    Case("few blocks, no prefixes", blocks=70, prefixes=False, abort=0.05),
    Case("drafts", drafts=4, stop=0.01),
    Case("drafts, few blocks", drafts=4, blocks=80, abort=0.05),
    Case("renewed plans", renews=True, abort=0.2, stop=0.03),
    Case("renewed plans, drafts, few blocks", renews=True, drafts=4, blocks=80, abort=0.05),
    Case("adapters, log-probabilities of prompts", adapters=5, logprobs=0.3, abort=0.1, stop=0.02),
    Case("four stages, few blocks", in_air=4, blocks=90, abort=0.05, stop=0.01),
    Case("async", is_async=True, in_air=2, abort=0.1, stop=0.02),
    Case(
        "async, renewed plans, runner v2",
        is_async=True,
        is_v2=True,
        in_air=2,
        renews=True,
        abort=0.1,
        stop=0.02,
    ),
    Case(
        "async, few blocks, runner v2", is_async=True, is_v2=True, in_air=2, blocks=70, abort=0.05, stop=0.01
    ),
    Case("async, adapters, few blocks", is_async=True, in_air=2, adapters=5, blocks=70, abort=0.05),
    Case("async, drafts, runner v2", is_async=True, is_v2=True, in_air=2, drafts=4, stop=0.01),
    Case(
        "async, drafts of a model, small steps",
        is_async=True,
        in_air=2,
        drafts=4,
        batch_tokens=64,
        has_draft_model=True,
    ),
    Case("async, two stages", is_async=True, in_air=3, blocks=70, abort=0.05, stop=0.01),
    Case("pictures", encoder_tokens=96, abort=0.05, stop=0.01, steps=1_000),
    Case(
        "pictures, few blocks, none cut",
        encoder_tokens=64,
        cuts_pictures=False,
        blocks=90,
        abort=0.05,
        steps=1_000,
    ),
    Case(
        "async, pictures, none cut",
        is_async=True,
        in_air=2,
        encoder_tokens=96,
        cuts_pictures=False,
        steps=1_000,
    ),
    Case("windows, few blocks", layers=("window",), blocks=70, abort=0.05, stop=0.01, steps=1_000),
    Case(
        "windows beside full attention",
        layers=("full", "window"),
        blocks=160,
        abort=0.05,
        stop=0.01,
        steps=1_000,
    ),
    Case(
        "states beside full attention",
        layers=("full", "states"),
        blocks=160,
        abort=0.05,
        stop=0.01,
        steps=1_000,
    ),
    Case(
        "async, states",
        is_async=True,
        in_air=2,
        layers=("full", "states"),
        blocks=160,
        abort=0.05,
        steps=1_000,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_runs_is_what_was_planned(case: Case, folder: Path, settings: dict[str, Any]) -> None:
    engine, aborted = live(case, folder, settings)
    counters = engine.scheduler.conductor.counters
    assert counters.mismatches == 0
    assert (counters.late_plans, counters.connections) == (0, 1)
    # Pictures that find no room are vLLM's to make room for: such a step is its own.
    assert counters.own_steps <= counters.starved_steps <= (case.steps / 100 if case.encoder_tokens else 0)
    assert (counters.renewed_plans > case.steps / 50) == case.renews
    assert counters.planned_steps > case.steps / 2
    assert engine.ended == set(engine.tokens)
    assert all(engine.tokens[name] for name in engine.tokens.keys() - aborted)


def live(case: Case, folder: Path, settings: dict[str, Any]) -> tuple[FakeEngine, set[str]]:
    """So many steps of random requests, and then until all have ended."""
    config = engine_config(
        folder,
        case.is_async,
        case.drafts,
        case.in_air,
        prefixes=case.prefixes,
        batch_tokens=case.batch_tokens,
        max_loras=2 if case.adapters else 0,
        is_v2=case.is_v2,
        has_draft_model=case.has_draft_model,
    )
    config.scheduler_config.disable_chunked_mm_input = not case.cuts_pictures
    scheduler = make_scheduler(config, case.blocks, settings, layers=case.layers)
    if case.encoder_tokens:
        give_encoder(scheduler, case.encoder_tokens)
    # Not by how long answers take on this machine.
    scheduler.conductor.patience.is_worth_another = lambda planned_s: case.renews  # type: ignore[method-assign]
    engine = FakeEngine(scheduler, case.in_air, seed=1, stop=case.stop)
    engine.watch = watch
    make, chance = RequestMaker(config), random.Random(2)
    families = [[chance.randrange(3, 500) for _ in range(200)] for _ in range(4)]
    aborted: set[str] = set()
    for _ in range(case.steps):
        if chance.random() < case.abort and scheduler.requests:
            name = chance.choice(sorted(scheduler.requests))
            aborted.add(name)
            engine.abort(name)
        while len(scheduler.requests) < chance.choice([4, 12, 20]):
            family = chance.choice(families)[: chance.choice([0, 40, 100, 200])]
            prompt = family + [chance.randrange(3, 500) for _ in range(chance.choice([1, 17, 64, 200]))]
            name, most, slo = f"r{len(engine.tokens)}", chance.choice([1, 5, 40, 90]), slo_of(chance)
            adapter = chance.randint(0, case.adapters) if case.adapters else 0
            logprobs = 3 if case.logprobs and chance.random() < case.logprobs else None
            pictures: list[Any] = []
            if case.encoder_tokens:
                prompt, pictures = with_pictures(chance, prompt)
            engine.add(make(name, prompt, most, adapter, logprobs, pictures, **slo))
        engine.step()
    engine.run_until_idle()
    scheduler.shutdown()
    return engine, aborted


def slo_of(chance: random.Random) -> dict[str, Any]:
    """Some tight, some loose, some best effort."""
    return chance.choice(
        [
            {"slo_ttft_ms": 150, "slo_tpot_ms": 25},
            {"slo_ttft_ms": 1_000, "slo_tpot_ms": 60, "slo_class": "chat"},
            {"slo_tpot_ms": 40},
            {"slo_ttft_slowdown": 5},
            {},
        ]
    )


def test_the_clock_is_virtual() -> None:
    before_us = CLOCK.now_us
    assert CLOCK() == before_us
