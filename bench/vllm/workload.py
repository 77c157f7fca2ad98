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


KINDS = (Kind("chat", 0.4, 64, 32), Kind("code", 0.4, 256, 16), Kind("summarize", 0.2, 512, 32))
LONG = "summarize"
BURSTINESS = 0.35
"""Shape of the gamma distribution of gaps: 1 would be a Poisson process."""


@dataclass(frozen=True)
class Speed:
    """What the engine takes, ms: a prompt of so many tokens alone, and a step of eight decodes."""

    prompt_ms: dict[int, float]
    decode8_ms: float

    @property
    def slos(self) -> dict[str, tuple[float, float]]:
        """Of each class: ms to the first token, ms from token to token."""
        step = self.decode8_ms
        return {
            "chat": (max(6 * self.prompt_ms[64], 12 * step), 4 * step),
            "code": (4 * self.prompt_ms[256] + 6 * step, 6 * step),
            "summarize": (6 * self.prompt_ms[512], 5 * step),
        }

    @property
    def capacity(self) -> float:
        """Requests a second that the engine could compute: prompts alone, decodes in eights."""
        work = sum(kind.share * (self.prompt_ms[kind.prompt] + kind.output * self.decode8_ms / 8) for kind in KINDS)
        return 1e3 / work


@dataclass(frozen=True)
class Arrival:
    at_s: float
    kind: Kind
    prompt: list[int]


def arrivals(rate: float, seconds: float, seed: int) -> list[Arrival]:
    """Of `rate` requests a second in the mean."""
    chance = random.Random(f"arrivals {seed}")
    found: list[Arrival] = []
    at_s = 0.0
    while True:
        at_s += chance.gammavariate(BURSTINESS, 1 / (rate * BURSTINESS))
        if at_s >= seconds:
            return found
        kind = chance.choices(KINDS, [one.share for one in KINDS])[0]
        found.append(Arrival(at_s, kind, [chance.randrange(100, 40_000) for _ in range(kind.prompt)]))
