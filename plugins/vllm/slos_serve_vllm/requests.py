"""The live requests of one engine: their numbers, and what the planner is told of them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm.v1.request import Request

from .adapters import adapter_of
from .frames import column
from .thinking import Thoughts

_HASH_BITS = 53
"""As many as a float64, and so a JavaScript number, holds exactly."""

_NEVER = 1 << 40
"""More blocks than any request has."""

_MOST_NAME = 300
"""Characters of a name that the planner takes."""


@dataclass(slots=True, eq=False)
class Live:
    """A request as the planner knows it. Equal to no other: lists of them are searched by what they are, not field by field."""

    number: int
    request: Request
    arrived_us: int
    waits_for_grammar: bool
    thinks: bool
    """Its thoughts have not ended."""
    answers_next: bool = False
    """They ended with the last token: the next one is the answer's first."""
    thought_tokens: int = 0
    first_us: int = 0
    last_us: int = 0
    first_tokens: int = 0
    """How many tokens came out at `first_us`."""
    told_blocks: int = 0
    """So many of its blocks' hashes the planner knows."""
    due_hashes: int = 0
    """With so many hashes of vLLM's it has filled a block more."""
    evicted_at: int = 0
    """`LiveRequests.evictions` when it last lost its KV."""
    name: str = field(init=False)
    hashes: Sequence[bytes] = field(init=False)
    """vLLM's, of its full blocks so far."""

    def __post_init__(self) -> None:
        self.name = self.request.request_id
        self.hashes = self.request.block_hashes

    def answering_from(self, tokens: Sequence[int], thoughts: Thoughts) -> int:
        """Index of the answer's first token among those that came out, or -1: it came earlier, or is still to come."""
        if self.answers_next:
            self.answers_next = False
            return 0
        if not self.thinks:
            return -1
        count = thoughts.tokens_until_end(self.request, tokens)
        self.thought_tokens += len(tokens) if count is None else count
        self.thinks = count is None
        self.answers_next = count == len(tokens)
        return -1 if count is None or self.answers_next else count


class LiveRequests:
    """Numbers for requests, none given twice, and the requests by number and by vLLM's name."""

    def __init__(
        self, clock_us: Callable[[], int], longest: int, hashes_per_block: int, thoughts: Thoughts
    ) -> None:
        """`longest`: tokens of a request at most. `hashes_per_block`: 0 where prefixes are not shared."""
        self.shares_prefixes = hashes_per_block > 0
        self._clock_us = clock_us
        self._longest = longest
        self._hashes_per_block = hashes_per_block
        self.thoughts = thoughts
        self.waiting_for_grammar = 0
        """So many of them wait for their grammars."""
        self.evictions = 0
        """How often vLLM has dropped the KV of one of them."""
        self.departures = 0
        """So many have ended."""
        self.silent: dict[str, Live] = {}
        """By name: those of which no token came out yet."""
        self._next = 1
        self._by_name: dict[str, Live] = {}
        self._by_number: dict[int, Live] = {}
        self.by_number = self._by_number.get
        """The request of a number, or None: it has ended."""
        self.by_name = self._by_name.get

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Live]:
        return iter(self._by_name.values())

    def add(self, request: Request) -> Live:
        """A request that vLLM has just taken."""
        thinks = self.thoughts.begin(request)
        waited_us = max(0, int((time.time() - request.arrival_time) * 1e6))
        live = Live(
            number=self._next,
            request=request,
            arrived_us=self._clock_us() - waited_us,
            waits_for_grammar=waits_for_grammar(request),
            thinks=thinks,
            # Its prompt has ended its thoughts.
            answers_next=self.thoughts.are_told and not thinks,
        )
        self._next += 1
        self.waiting_for_grammar += live.waits_for_grammar
        self._by_name[live.name] = self.silent[live.name] = live
        self._by_number[live.number] = live
        return live

    def remove(self, live: Live) -> None:
        """It has ended."""
        self.grammar_is_ready(live)
        self.departures += 1
        self.silent.pop(live.name, None)
        del self._by_name[live.name]
        del self._by_number[live.number]

    def evicted(self, live: Live) -> None:
        """vLLM has dropped its KV."""
        self.evictions += 1
        live.evicted_at = self.evictions

    def grammar_is_ready(self, live: Live) -> None:
        """It waits for it no longer."""
        self.waiting_for_grammar -= live.waits_for_grammar
        live.waits_for_grammar = False

    def ended(self, still_there: Iterable[str]) -> list[Live]:
        """Those that vLLM does not have any more."""
        there = set(still_there)
        return [live for name, live in self._by_name.items() if name not in there]

    def arrival(self, live: Live) -> dict[str, Any]:
        """`arrived` of a step message."""
        request = live.request
        message: dict[str, Any] = {
            "id": live.number,
            "name": request.request_id[:_MOST_NAME],
            "ageUs": self._clock_us() - live.arrived_us,
            "promptTokens": request.num_prompt_tokens,
            "maxOutputTokens": max(1, min(request.max_tokens, self._longest - request.num_prompt_tokens)),
            "slo": arguments_of(request),
            "lora": request.lora_request.lora_name if request.lora_request is not None else None,
            "waitsForGrammar": live.waits_for_grammar,
        }
        if (adapter := adapter_of(request)) > 0:
            message["adapter"] = adapter
        if request.sampling_params is not None and request.sampling_params.prompt_logprobs is not None:
            message["allRows"] = True
        # vLLM gives it none of its cache, as where each row of a prompt is asked for: a plan that counted on a hit would begin
        # further on than the step.
        live.told_blocks = _NEVER if request.skip_reading_prefix_cache else 0
        if self.shares_prefixes and live.told_blocks == 0:
            message["prefix"] = column(self.new_hashes(live))
        return message

    def new_hashes(self, live: Live) -> list[int]:
        """Of its full KV blocks, those that the planner does not know yet."""
        hashes = live.hashes
        # vLLM hashes parts of blocks where models have blocks of several sizes; a chain's last part stands for the block.
        parts = self._hashes_per_block
        known, live.told_blocks = live.told_blocks, len(hashes) // parts
        live.due_hashes = (live.told_blocks + 1) * parts
        return [hash_number(hashes[place * parts + parts - 1]) for place in range(known, live.told_blocks)]

    def arrival_anew(self, live: Live) -> dict[str, Any]:
        """The same for a planner that has not seen what it has done so far. Only landed steps are told."""
        message = self.arrival(live)
        output = live.request.num_output_tokens
        computed = landed_tokens(live.request)
        if output == 0 and computed == 0:
            return message
        now_us = self._clock_us()
        rest = output - live.first_tokens
        times = [(now_us - live.first_us, live.first_tokens)] if output > 0 else []
        if rest > 0:
            times.append((now_us - live.last_us, rest))
        message["begun"] = {
            "output": output,
            "computed": computed,
            "agoUs": column(ago for ago, _ in times),
            "tokens": column(count for _, count in times),
            "even": True,
        }
        if live.thought_tokens > 0 and not live.thinks:
            message["begun"]["thoughtTokens"] = live.thought_tokens
        return message


def arguments_of(request: Request) -> dict[str, Any]:
    """What the request says of its SLO: `vllm_xargs` that begin with slo_. The planner knows which there are, and counts the
    others."""
    extra = request.sampling_params.extra_args if request.sampling_params is not None else None
    return {name: value for name, value in extra.items() if name.startswith("slo_")} if extra else {}


def waits_for_grammar(request: Request) -> bool:
    """Its grammar is not compiled yet. One that failed never is: vLLM ends the request."""
    structured = request.structured_output_request
    return structured is not None and (
        structured.grammar is None or isinstance(structured.grammar, Exception)
    )


def landed_tokens(request: Request) -> int:
    """Tokens whose KV is in place, without what steps in the air will add."""
    return max(0, request.num_computed_tokens - request.num_in_flight_tokens)


def hash_number(block_hash: bytes) -> int:
    """A block's hash as a whole number that a float64 holds."""
    return int.from_bytes(block_hash[:8], "little") >> (64 - _HASH_BITS)
