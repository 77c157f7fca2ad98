"""A real vLLM with made-up weights, in this process: its scheduler is at hand."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.engine.llm_engine import LLMEngine

from slos_serve_vllm.scheduler import PlannedScheduler

from .answers import TOLD, Answers, answer_of
from .weights import TELLING, make_up

_engines: list[LLMEngine] = []
"""One that is collected takes what all of a process share with it."""


def engine_of(model: str, settings: dict[str, Any] | None, **more: Any) -> LLMEngine:
    """With the planner's steps, or vLLM's own where there are no settings."""
    ours = {
        "scheduler_cls": "slos_serve_vllm.Scheduler",
        "additional_config": {"slos_serve": settings},
    }
    usual = {
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "max_model_len": 512,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 128,
        "num_gpu_blocks_override": 60,
    }
    make_up(more.pop("largest_weight", TELLING))
    arguments = EngineArgs(
        model=model,
        load_format="dummy",
        dtype="float32",
        block_size=32,
        seed=0,
        **(ours if settings is not None else {}),
        **{**usual, **more},
    )
    engine = LLMEngine.from_engine_args(arguments)
    _engines.append(engine)
    return engine


def is_planned(engine: LLMEngine) -> bool:
    return isinstance(engine.engine_core.engine_core.scheduler, PlannedScheduler)


def scheduler_of(engine: LLMEngine) -> PlannedScheduler:
    assert is_planned(engine)
    return engine.engine_core.engine_core.scheduler  # type: ignore[no-any-return]


def told_of(engine: LLMEngine) -> int | None:
    """How many of the likeliest tokens: of vLLM's own answers others are measured by."""
    return None if is_planned(engine) else TOLD


def give(
    engine: LLMEngine,
    choices: int = 2,
    loras: Sequence[LoRARequest] = (),
    prompt_logprobs: int | None = None,
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
            logprobs=told_of(engine),
            prompt_logprobs=prompt_logprobs if number % 3 == 0 else None,
            extra_args=chance.choice([{"slo_ttft_ms": 500, "slo_tpot_ms": 50}, {"slo_tpot_ms": 100}, {}]),
        )
        # The processors' kernels compute requests of none beside others with an adapter of these.
        lora = loras[number % len(loras)] if loras else None
        engine.add_request(f"r{number}", {"prompt_token_ids": prompt}, parameters, lora_request=lora)


def run(engine: LLMEngine, steps: int = 100_000, answers: Answers | None = None) -> Answers:
    """Steps until all have ended, or so many."""
    answers = {} if answers is None else answers
    for _ in range(steps):
        if not engine.has_unfinished_requests():
            break
        for output in engine.step():
            for choice in output.outputs:
                answers[f"{output.request_id}/{choice.index}"] = answer_of(choice)
    return answers


def check_planned(engine: LLMEngine) -> None:
    """Its steps were the plans', to the token."""
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
