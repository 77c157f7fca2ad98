"""Real engines whose models, or whose processes, are of other kinds: the tokens are those of vLLM's own scheduler."""

import random
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.v1.engine.llm_engine import LLMEngine

from slos_serve_vllm.scheduler import SloAsyncScheduler

from .answers import Answers, check_same
from .conftest import settings_for
from .planner_process import PlannerProcess
from .real_engine import (
    allow_async,
    check_planned,
    engine_of,
    give,
    run,
    scheduler_of,
    told_of,
)
from .tiny_listener import prompt_with, write_tiny_listener
from .tiny_models import CAN_SHARE, CONFIGS, LARGEST_WEIGHT, write_model_of
from .weights import IN_WORKERS

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_same_tokens_where_layers_keep_other_kv(
    kind: str, planner: PlannerProcess, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model_of(kind, folder / "model")
    options = {"enable_prefix_caching": CAN_SHARE[kind], "largest_weight": LARGEST_WEIGHT[kind]}
    own = said_by(engine_of(model, None, **options))
    engine = engine_of(model, settings_for(planner), **options)
    check_same(said_by(engine), own)
    check_planned(engine)
    allow_async(monkeypatch)
    engine = engine_of(model, settings_for(planner), **options)
    assert type(scheduler_of(engine)) is SloAsyncScheduler
    check_same(said_by(engine), own)
    check_planned(engine)


@pytest.mark.parametrize("kind", ["states and full attention", "windows and full attention"])
def test_plans_fit_where_layers_that_keep_other_kv_are_short_of_it(
    kind: str, planner: PlannerProcess, folder: Path
) -> None:
    few = {"enable_prefix_caching": CAN_SHARE[kind], "num_gpu_blocks_override": 24}
    model = write_model_of(kind, folder / "model")
    own = said_by(engine_of(model, None, **few))
    engine = engine_of(model, settings_for(planner), **few)
    check_same(said_by(engine), own)
    check_planned(engine)


def said_by(engine: LLMEngine) -> Answers:
    give(engine)
    first = run(engine)
    # What the first ones left in the cache is gone on from.
    give(engine)
    return {**first, **{f"again {name}": tokens for name, tokens in run(engine).items()}}


@pytest.mark.parametrize("is_cut", [True, False])
def test_the_same_tokens_with_sounds(
    is_cut: bool, planner: PlannerProcess, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_listener(folder / "listener")
    answers: list[Answers] = []
    for given in (None, settings_for(planner), settings_for(planner)):
        if len(answers) == 2:
            allow_async(monkeypatch)
        engine = engine_of(
            model,
            given,
            skip_tokenizer_init=False,
            limit_mm_per_prompt={"audio": 3},
            # No less than the longest sound may take where none is cut.
            max_num_batched_tokens=128 if is_cut else 768,
            disable_chunked_mm_input=not is_cut,
        )
        give_sounds(engine)
        answers.append(run(engine))
        if given is not None:
            check_planned(engine)
    check_same(answers[1], answers[0])
    check_same(answers[2], answers[0])


def give_sounds(engine: LLMEngine) -> None:
    chance = random.Random(4)
    for number in range(16):
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=chance.choice([5, 20]),
            ignore_eos=True,
            detokenize=False,
            logprobs=told_of(engine),
        )
        engine.add_request(f"r{number}", prompt_with(chance, number % 4), parameters)


def test_the_same_tokens_of_two_stages(model: str, own_answers: Answers, settings: dict[str, Any]) -> None:
    engine = engine_of(
        model,
        settings,
        pipeline_parallel_size=2,
        distributed_executor_backend="mp",
        worker_extension_cls=IN_WORKERS,
        # Processors make room for what comes from the stage before only where they compile.
        enforce_eager=False,
        compilation_config={"mode": 2, "backend": "eager"},
    )
    try:
        give(engine)
        check_same(run(engine), own_answers)
        check_planned(engine)
    finally:
        engine.engine_core.shutdown()
