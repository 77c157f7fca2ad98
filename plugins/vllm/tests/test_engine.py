"""A real vLLM with made-up weights, in this process: its tokens are those of vLLM's own schedulers, whatever the plan."""

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.engine.llm_engine import LLMEngine

from slos_serve_vllm.scheduler import PlannedScheduler, SloAsyncScheduler, SloScheduler

from .conftest import settings_for
from .planner_process import PlannerProcess
from .tiny_lora import write_tiny_lora
from .tiny_model import write_tiny_model

Answers = dict[str, list[int]]
_engines: list[LLMEngine] = []
"""One that is collected takes what all of a process share with it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield


def engine_of(model: str, settings: dict[str, Any] | None, **more: Any) -> LLMEngine:
    """With the planner's steps, or vLLM's own where there are no settings."""
    ours = {
        "scheduler_cls": "slos_serve_vllm.Scheduler",
        "additional_config": {"slos_serve": settings},
    }
    arguments = EngineArgs(
        model=model,
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        max_model_len=512,
        max_num_seqs=8,
        max_num_batched_tokens=128,
        num_gpu_blocks_override=60,
        seed=0,
        **(ours if settings is not None else {}),
        **more,
    )
    engine = LLMEngine.from_engine_args(arguments)
    _engines.append(engine)
    return engine


def scheduler_of(engine: LLMEngine) -> PlannedScheduler:
    scheduler = engine.engine_core.engine_core.scheduler
    assert isinstance(scheduler, PlannedScheduler)
    return scheduler


def give(
    engine: LLMEngine, choices: int = 2, loras: Sequence[LoRARequest] = (), logprobs: int | None = None
) -> None:
    """Prompts with shared beginnings, short and long answers, one with several choices; of each of `loras` and of none. Of some
    prompts the log-probabilities are asked for."""
    chance = random.Random(3)
    shared = [chance.randrange(3, 500) for _ in range(100)]
    for number in range(20):
        begin = shared[: chance.choice([0, 40, 100])]
        prompt = begin + [chance.randrange(3, 500) for _ in range(chance.choice([5, 60, 150]))]
        has_choices = number == 7 and choices > 1
        parameters = SamplingParams(
            temperature=1.0 if has_choices else 0.0,
            top_k=1 if has_choices else 0,
            max_tokens=chance.choice([5, 20, 40]),
            ignore_eos=True,
            detokenize=False,
            n=choices if has_choices else 1,
            prompt_logprobs=logprobs if number % 3 == 0 else None,
            extra_args=chance.choice([{"slo_ttft_ms": 500, "slo_tpot_ms": 50}, {"slo_tpot_ms": 100}, {}]),
        )
        lora = ([None, *loras])[number % (1 + len(loras))]
        engine.add_request(f"r{number}", {"prompt_token_ids": prompt}, parameters, lora_request=lora)


def run(engine: LLMEngine, steps: int = 100_000, answers: Answers | None = None) -> Answers:
    """Steps until all have ended, or so many."""
    answers = {} if answers is None else answers
    for _ in range(steps):
        if not engine.has_unfinished_requests():
            break
        for output in engine.step():
            for choice in output.outputs:
                answers[f"{output.request_id}/{choice.index}"] = list(choice.token_ids)
    return answers


@pytest.fixture(scope="module")
def own_answers(model: str) -> Answers:
    engine = engine_of(model, None)
    give(engine)
    return run(engine)


def test_the_same_tokens_as_planned(model: str, own_answers: Answers, settings: dict[str, Any]) -> None:
    engine = engine_of(model, settings)
    assert type(scheduler_of(engine)) is SloScheduler
    give(engine, logprobs=1)
    assert run(engine) == own_answers
    counters = scheduler_of(engine).conductor.counters
    assert counters.planned_steps > 20
    assert (counters.own_steps, counters.mismatches) == (0, 0)


def test_the_same_tokens_with_asynchronous_scheduling(
    model: str, own_answers: Answers, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_async(monkeypatch)
    engine = engine_of(model, settings)
    assert type(scheduler_of(engine)) is SloAsyncScheduler
    give(engine)
    assert run(engine) == own_answers
    counters = scheduler_of(engine).conductor.counters
    assert counters.planned_steps > 20
    assert (counters.own_steps, counters.mismatches) == (0, 0)


def test_the_same_tokens_of_more_adapters_than_fit_a_step(
    model: str, settings: dict[str, Any], folder: Path
) -> None:
    loras = [LoRARequest(f"a{n}", n, write_tiny_lora(folder / f"a{n}", n)) for n in range(1, 5)]
    answers: list[Answers] = []
    for given in (None, settings):
        engine = engine_of(model, given, enable_lora=True, max_loras=2, max_lora_rank=8)
        give(engine, 1, loras)
        answers.append(run(engine))
    assert answers[0] == answers[1]
    counters = scheduler_of(engine).conductor.counters
    assert counters.planned_steps > 20
    assert (counters.own_steps, counters.mismatches) == (0, 0)


def allow_async(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processors' platform turns it off: it has no streams to overlap. The scheduler does not mind."""
    check = CpuPlatform.check_and_update_config.__func__  # type: ignore[attr-defined]

    def checked(cls: Any, config: Any) -> None:
        check(cls, config)
        config.scheduler_config.async_scheduling = True

    monkeypatch.setattr(CpuPlatform, "check_and_update_config", classmethod(checked))


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
    assert scheduler_of(engine).conductor.wait_for_planner(60)
    run(engine, answers=answers)
    assert answers == own_answers
    assert counters.connections == 2
    assert counters.planned_steps > 16
    assert counters.mismatches == 0
    process.stop()


def test_the_same_tokens_with_drafts(model: str, own_answers: Answers, settings: dict[str, Any]) -> None:
    # The last engine of this process: vLLM cannot start another one once its drafter's libraries are loaded.
    drafts = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}
    engine = engine_of(model, settings, speculative_config=drafts)
    # The processors' kernels cannot verify drafts of what is not greedy.
    give(engine, choices=1)
    one_each = {name: tokens for name, tokens in own_answers.items() if name != "r7/1"}
    assert run(engine) == one_each
    counters = scheduler_of(engine).conductor.counters
    assert (counters.own_steps, counters.mismatches) == (0, 0)
