"""Steps between the moment they are scheduled and the moment their outcome is known, and how they are told."""

from dataclasses import dataclass
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs

from .arrange import Arrangement
from .frames import column
from .plan import Plan
from .requests import Live, LiveRequests, landed_tokens

STOPPED, PREEMPTED = 1, 2
"""Bits of `landed.flags`."""


@dataclass(slots=True)
class Step:
    """A step that is in the air."""

    output: SchedulerOutput
    scheduled_us: int
    names: list[str]
    positions: list[int]
    tokens: list[int]
    drafts: list[int]
    lives: list[Live]
    """Its requests, in one order for all these lists."""
    seq: int = 0
    """Of the message that told of it; 0: the planner does not know of it."""

    def drop_ended(self) -> None:
        """Only requests that are still live, for a planner that does not know the others."""
        kept = [place for place, known in enumerate(self.lives) if not known.request.is_finished()]
        self.names = [self.names[place] for place in kept]
        self.positions = [self.positions[place] for place in kept]
        self.tokens = [self.tokens[place] for place in kept]
        self.drafts = [self.drafts[place] for place in kept]
        self.lives = [self.lives[place] for place in kept]


def step_of(output: SchedulerOutput, live: LiveRequests, scheduled_us: int) -> Step:
    """What vLLM has scheduled. Requests that the planner knows nothing of are left out."""
    placed = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
    cached = output.scheduled_cached_reqs
    placed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    drafted = output.scheduled_spec_decode_tokens
    step = Step(output, scheduled_us, [], [], [], [], [])
    by_name = live.by_name
    for name, total in output.num_scheduled_tokens.items():
        known = by_name(name)
        if known is None:
            continue
        drafts = len(drafted[name]) if name in drafted else 0
        step.names.append(name)
        step.positions.append(placed[name])
        step.tokens.append(total - drafts)
        step.drafts.append(drafts)
        step.lives.append(known)
    return step


@dataclass(slots=True)
class Comparison:
    """What was scheduled against what was planned."""

    exact: bool
    """To the token and the draft: nothing more need be told."""
    faults: list[str]
    """Where vLLM did not do what it was told to, in words. Drafts that were not there and places that were guessed are none."""


def compare(plan: Plan, arrangement: Arrangement, step: Step, guess_tokens: int) -> Comparison:
    """Checks each request of the plan."""
    names = arrangement.names
    if (
        names == step.names
        and plan.tokens == step.tokens
        and plan.positions == step.positions
        and plan.drafts == step.drafts
    ):
        return Comparison(True, [])
    at = {name: place for place, name in enumerate(step.names)}
    exact = len(step.names) == len(names)
    faults: list[str] = []
    for place, name in enumerate(names):
        if name is None:
            exact = False
            continue
        found = at.pop(name, None)
        planned = (plan.positions[place], plan.tokens[place], plan.drafts[place])
        if found is None:
            exact = False
            faults.append(f"{name}: {_words(*planned)} was planned, and it did not run")
            continue
        real = (step.positions[found], step.tokens[found], step.drafts[found])
        if real == planned:
            continue
        exact = False
        is_guess = abs(real[0] - planned[0]) <= guess_tokens and guess_tokens > 0
        has_more_drafts = real[2] > planned[2] and name not in arrangement.padded
        if real[1] != planned[1] or has_more_drafts or (real[0] != planned[0] and not is_guess):
            faults.append(f"{name}: {_words(*planned)} was planned, {_words(*real)} ran")
    if at:
        exact = False
        faults += [f"{name} was not planned, and ran" for name in at]
    return Comparison(exact, faults)


def _words(position: int, tokens: int, drafts: int) -> str:
    return f"[{position}, +{tokens}{f', {drafts} drafts' if drafts else ''}]"


def ran_message(step: Step, batch: int, exact: bool) -> dict[str, Any]:
    """`ran` of a step message."""
    message: dict[str, Any] = {"batch": batch, "atUs": step.scheduled_us, "exact": exact}
    if not exact:
        message["ids"] = column(live.number for live in step.lives)
        message["positions"] = column(step.positions)
        message["tokens"] = column(step.tokens)
        if any(step.drafts):
            message["drafts"] = column(step.drafts)
    return message


def landed_message(
    step: Step, outputs: dict[int, EngineCoreOutputs], live: LiveRequests, now_us: int, began_us: int
) -> dict[str, Any]:
    """`landed` of a step message. Requests that have ended with this step leave `live`."""
    yielded = {one.request_id: one for group in outputs.values() for one in group.outputs}
    ids: list[int] = []
    produced: list[int] = []
    computed: list[int] = []
    flags: list[int] = []
    filled: list[tuple[int, int]] = []
    is_plain = True
    for place, known in enumerate(step.lives):
        request = known.request
        output = yielded.get(step.names[place])
        count = len(output.new_token_ids) if output is not None else 0
        ended = output is not None and output.finish_reason is not None
        if request.is_finished() and (count == 0 or not ended):
            # Aborted, or given up for an error: it is told among those.
            continue
        flag = STOPPED if ended else 0
        in_place = step.positions[place] + step.tokens[place] + max(0, count - 1)
        if not ended and landed_tokens(request) < in_place:
            # Preempted while it was in the air: what it computed is gone, what came out of it is not.
            in_place = landed_tokens(request)
            flag |= PREEMPTED
            is_plain = False
        if count > 0:
            known.saw_tokens(count, now_us)
            if live.shares_prefixes:
                filled += [(known.number, number) for number in live.new_hashes(known)]
        if ended:
            live.remove(known)
        ids.append(known.number)
        produced.append(count)
        computed.append(in_place)
        flags.append(flag)
    message: dict[str, Any] = {
        "step": step.seq,
        "atUs": now_us,
        "durationUs": max(0, now_us - began_us),
        "ids": column(ids),
        "produced": column(produced),
    }
    if any(flags):
        message["flags"] = column(flags)
    if not is_plain:
        message["computed"] = column(computed)
    if filled:
        message["filledIds"] = column(number for number, _ in filled)
        message["filledHashes"] = column(number for _, number in filled)
    return message
