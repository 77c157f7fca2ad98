"""lm-evaluation-harness against a real server: all ways to ask say the same, which is what the model's weights say."""

from __future__ import annotations

import os
from typing import Any

import pytest
import requests

from harness import MODEL, URL, evaluate, scores, tokens_of
from reference import Reference

#: The options that its users choose from.
WAYS: dict[str, dict[str, Any]] = {
    "tokens": {},
    "text": {"tokenized_requests": False},
    "eight at once": {"num_concurrent": 8},
    "batches of four": {"batch_size": 4},
}


#: Of a token's log-likelihood. What is left is the rounding to 16 bits in attention, where sums of 32 bits differ in order.
EXACT = 1e-3


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(os.environ["LM_EVAL_GGUF"])


def of_reference(reference: Reference, sample: dict[str, Any]) -> list[tuple[float, bool, int]]:
    """The same by the weights alone: a blank stands before each choice, and the whole is cut into tokens at once."""
    scored = []
    for argument in sample["arguments"]:
        context, continuation = argument
        count = len(tokens_of(context))
        whole = tokens_of(context + continuation)
        scored.append(reference.score(whole[:count], whole[count:]))
    return scored


@pytest.mark.parametrize("way", WAYS)
def test_choices(way: str, reference: Reference) -> None:
    made = evaluate("capitals", **WAYS[way])
    expected = [one for sample in made["samples"] for one in of_reference(reference, sample)]
    told = scores(made)
    assert len(told) == 32
    for (score, is_greedy), (own_score, own_is_greedy, count) in zip(told, expected, strict=True):
        assert score == pytest.approx(own_score, abs=EXACT * count, rel=0)
        assert is_greedy == own_is_greedy


@pytest.mark.parametrize("way", WAYS)
def test_rolling(way: str, reference: Reference) -> None:
    made = evaluate("stories", **WAYS[way])
    info = requests.get(f"{URL}/tokenizer_info", timeout=60).json()
    first = tokens_of(info["bos_token"] or info["eos_token"])
    assert len(first) == 1
    for sample in made["samples"]:
        [told] = sample["filtered_resps"]
        score = told[0] if isinstance(told, list | tuple) else told
        expected, _, count = reference.score(first, tokens_of(sample["doc"]["text"]))
        assert score == pytest.approx(expected, abs=EXACT * count, rel=0)


def greedily(reference: Reference, prompt: str, most: int) -> str:
    """What the likeliest tokens come to, up to the end of a line."""
    end = tokens_of(requests.get(f"{URL}/tokenizer_info", timeout=60).json()["eos_token"])[0]
    tokens, answer = tokens_of(prompt), list[int]()
    while len(answer) < most:
        token = int(reference.logprobs(tokens + answer)[-1].argmax())
        if token == end:
            break
        answer.append(token)
    text = requests.post(f"{URL}/detokenize", json={"tokens": answer}, timeout=60).json()["prompt"]
    return text.split("\n")[0]


@pytest.mark.parametrize("way", WAYS)
def test_generation(way: str, reference: Reference) -> None:
    made = evaluate("sums", **WAYS[way])
    for sample in made["samples"]:
        [told] = sample["filtered_resps"]
        assert told == greedily(reference, sample["arguments"][0][0], 24)


@pytest.mark.parametrize("at_once", [1, 8])
def test_chat(at_once: int) -> None:
    made = evaluate("sums", chat=True, num_concurrent=at_once)
    for sample in made["samples"]:
        [told] = sample["filtered_resps"]
        message = {"role": "user", "content": sample["doc"]["question"]}
        asked = {"model": MODEL, "messages": [message], "max_tokens": 24, "temperature": 0, "stop": ["\n"]}
        answer = requests.post(f"{URL}/v1/chat/completions", json=asked, timeout=60).json()
        assert told == answer["choices"][0]["message"]["content"]
