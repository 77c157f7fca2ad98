"""What a real vLLM answers, and whether it is what another one does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOLD = 4
"""So many of the likeliest tokens are told of vLLM's own answers."""
_AS_LIKELY = 1e-4
"""Logarithms of probabilities: steps of other sizes are summed up in other orders, which makes some millionths."""


@dataclass
class Answer:
    tokens: list[int]
    as_likely: list[set[int]] = field(default_factory=list)
    """Where that is told: of each token, those that might have come in its place."""


Answers = dict[str, Answer]


def answer_of(choice: Any) -> Answer:
    """Of what vLLM has put out so far."""
    tokens = list(choice.token_ids)
    told: Sequence[Mapping[int, Any]] = choice.logprobs or []
    return Answer(tokens, [_as_likely(token, one) for token, one in zip(tokens, told, strict=False)])


def _as_likely(token: int, told: Mapping[int, Any]) -> set[int]:
    least = told[token].logprob - _AS_LIKELY
    return {other for other, one in told.items() if one.logprob >= least}


def check_same(answers: Answers, own: Answers) -> None:
    """Up to where two tokens were as likely: after those it is another text."""
    assert answers.keys() == own.keys()
    for name, answer in answers.items():
        expected = own[name]
        assert len(answer.tokens) == len(expected.tokens), f"{name} is of another length"
        for at, (token, other) in enumerate(zip(answer.tokens, expected.tokens, strict=True)):
            if token == other:
                continue
            assert token in expected.as_likely[at], f"{name}: token {at} is {token}, not {other}"
            break
