"""Drafts that a real vLLM verifies. The last engine of this process: vLLM cannot start another one once its drafter's libraries
are loaded."""

from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.llm_engine import LLMEngine

from .answers import Answers, check_same
from .real_engine import check_planned, engine_of, give, run, told_of
from .tiny_model import write_tiny_model
from .tiny_tokenizer import tiny_tokenizer

pytestmark = pytest.mark.usefixtures("in_this_process")


def test_the_same_tokens_with_drafts_also_where_a_grammar_holds_them(
    own_answers: Answers, settings: dict[str, Any], folder: Path
) -> None:
    model = write_tiny_model(folder / "model")
    tiny_tokenizer().save_pretrained(model)
    own = engine_of(model, None, skip_tokenizer_init=False)
    give_held(own)
    held = run(own)
    drafts = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}
    engine = engine_of(model, settings, skip_tokenizer_init=False, speculative_config=drafts)
    # The processors' kernels cannot verify drafts of what is not greedy.
    give(engine, choices=1)
    give_held(engine)
    one_each = {name: answer for name, answer in own_answers.items() if name != "r7/1"}
    check_same(run(engine), {**one_each, **held})
    check_planned(engine)


def give_held(engine: LLMEngine) -> None:
    """Answers of few words, so that there is much to draft."""
    for number in range(4):
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=30,
            detokenize=False,
            logprobs=told_of(engine),
            structured_outputs=StructuredOutputsParams(regex="((w5|w6)w7){20}"),
        )
        prompt = {"prompt_token_ids": [5, 7, 6, 7] * (3 + number)}
        engine.add_request(f"held{number}", prompt, parameters)
