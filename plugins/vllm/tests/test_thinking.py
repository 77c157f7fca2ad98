"""Where thoughts end, by a parser such as vLLM's: in the middle of what a step yields, at its end, in the prompt."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from slos_serve_vllm.requests import Live, hash_number
from slos_serve_vllm.thinking import Thoughts

END = 9


class Parser:
    """Thoughts end with the token 9."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def is_reasoning_end(self, tokens: Sequence[int]) -> bool:
        return END in tokens

    def is_reasoning_end_streaming(self, _tokens: Sequence[int], new: Sequence[int]) -> bool:
        return END in new


THOUGHTS = Thoughts(SimpleNamespace(reasoner_cls=Parser, tokenizer=None))


def indexes(steps: list[list[int]], prompt: list[int]) -> tuple[list[int], int]:
    """What each step is told to have, and how many tokens were thoughts."""
    request: Any = SimpleNamespace(
        request_id="r", prompt_token_ids=prompt, output_token_ids=[], block_hashes=[]
    )
    thinks = THOUGHTS.begin(request)
    live = Live(1, request, 0, False, thinks, answers_next=not thinks)
    told = []
    for tokens in steps:
        request.output_token_ids = [*request.output_token_ids, *tokens]
        told.append(live.answering_from(tokens, THOUGHTS))
    return told, live.thought_tokens


@pytest.mark.parametrize(
    ("steps", "prompt", "told", "count"),
    [
        ([[1], [2], [END], [3], [4]], [5], [-1, -1, -1, 0, -1], 3),
        ([[1, 2], [3, END, 4], [5]], [5], [-1, 2, -1], 4),
        ([[1, 2], [3, END], [4, 5], [6]], [5], [-1, -1, 0, -1], 4),
        ([[1], [2]], [5, END], [0, -1], 0),
        ([[1], [2]], [5], [-1, -1], 2),
    ],
)
def test_tells_where_the_answer_begins(
    steps: list[list[int]], prompt: list[int], told: list[int], count: int
) -> None:
    assert indexes(steps, prompt) == (told, count)


def test_without_a_parser_nothing_thinks() -> None:
    thoughts = Thoughts(SimpleNamespace())
    request: Any = SimpleNamespace(prompt_token_ids=[1], output_token_ids=[])
    assert not thoughts.are_told
    assert not thoughts.begin(request)


def test_hashes_are_numbers_that_a_float_holds() -> None:
    for first in (b"\x00" * 32, b"\xff" * 32, bytes(range(32))):
        number = hash_number(first)
        assert int(float(number)) == number < 2**53
    assert hash_number(b"\x01" + b"\x00" * 31) != hash_number(b"\x00" * 6 + b"\x01" + b"\x00" * 25)
