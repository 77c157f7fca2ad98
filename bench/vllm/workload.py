"""Requests of three classes, in bursts, the same for every system; their objectives follow from the engine's own speed."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A class: its share of the requests, and tokens of each."""

    name: str
    share: float
    prompt: int
    output: int



@dataclass(frozen=True)
class Mix:
    """The classes, and how many requests decode together where the engine is not idle."""

    kinds: tuple[Kind, ...]
    decodes: int


LONG = "summarize"
MIXES = {
    "cpu": Mix((Kind("chat", 0.4, 64, 32), Kind("code", 0.4, 256, 16), Kind(LONG, 0.2, 512, 32)), 8),
    "gpu": Mix((Kind("chat", 0.4, 512, 128), Kind("code", 0.4, 2048, 64), Kind(LONG, 0.2, 6144, 128)), 64),
}
BURSTINESS = 0.35
"""Shape of the gamma distribution of gaps: 1 would be a Poisson process."""


@dataclass(frozen=True)
class Speed:
    """What the engine takes, ms: a prompt of so many tokens alone, and a step of the mix's decodes."""

    mix: Mix
    prompt_ms: dict[int, float]
    decode_ms: float

    @property
    def slos(self) -> dict[str, tuple[float, float]]:
        """Of each class: ms to the first token, ms from token to token."""
        step = self.decode_ms
        chat, code, long = (self.prompt_ms[kind.prompt] for kind in self.mix.kinds)
        return {
            "chat": (max(6 * chat, 12 * step), 4 * step),
            "code": (4 * code + 6 * step, 6 * step),
            LONG: (6 * long, 5 * step),
        }

    @property
    def capacity(self) -> float:
        """Requests a second that the engine could compute: prompts alone, decodes together."""
        each_ms = self.decode_ms / self.mix.decodes
        work = sum(kind.share * (self.prompt_ms[kind.prompt] + kind.output * each_ms) for kind in self.mix.kinds)
        return 1e3 / work


@dataclass(frozen=True)
class Arrival:
    at_s: float
    kind: Kind
    prompt: list[int]


def arrivals(kinds: tuple[Kind, ...], rate: float, seconds: float, seed: int) -> list[Arrival]:
    """Of `rate` requests a second in the mean."""
    chance = random.Random(f"arrivals {seed}")
    found: list[Arrival] = []
    at_s = 0.0
    while True:
        at_s += chance.gammavariate(BURSTINESS, 1 / (rate * BURSTINESS))
        if at_s >= seconds:
            return found
        kind = chance.choices(kinds, [one.share for one in kinds])[0]
        found.append(Arrival(at_s, kind, [chance.randrange(100, 40_000) for _ in range(kind.prompt)]))
