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
    began_us: int
    """When the engine could begin with it, if no other step was in the air."""
    placed: dict[str, int]
    """By name: tokens whose KV was in place before."""
    drafted: dict[str, int]
    """By name: drafts to verify, where there are any."""
    names: list[str]
    """Its requests, in one order with `lives`."""
    lives: list[Live]
    preemptions: list[int]
    """How often each had been preempted."""
    seq: int = 0
    """Of the message that told of it; 0: the planner does not know of it."""

    def drop_ended(self) -> None:
        """Only requests that are still live, for a planner that does not know the others."""
        kept = [place for place, known in enumerate(self.lives) if not known.request.is_finished()]
        self.names = [self.names[place] for place in kept]
        self.lives = [self.lives[place] for place in kept]
        self.preemptions = [self.preemptions[place] for place in kept]

    def computed(self, name: str) -> int:
        """Known tokens that it computes of a request, drafts not counted."""
        return self.output.num_scheduled_tokens[name] - self.drafted.get(name, 0)


def step_of(output: SchedulerOutput, live: LiveRequests, scheduled_us: int, began_us: int) -> Step:
    """What vLLM has scheduled. Requests that the planner knows nothing of are left out."""
    placed = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
    cached = output.scheduled_cached_reqs
    placed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    drafted = {name: len(drafts) for name, drafts in output.scheduled_spec_decode_tokens.items()}
    by_name = live.by_name
    names = list(output.num_scheduled_tokens)
    found = [by_name(name) for name in names]
    lives = [one for one in found if one is not None]
    if len(lives) < len(names):
        names = [name for name, one in zip(names, found, strict=True) if one is not None]
    preemptions = [one.request.num_preemptions for one in lives]
    return Step(output, scheduled_us, began_us, placed, drafted, names, lives, preemptions)


@dataclass(slots=True)
class Comparison:
    """What was scheduled against what was planned."""

    exact: bool
    """To the token and the draft: nothing more need be told."""
    faults: list[str]
    """Where vLLM did not do what it was told to, in words. None are: drafts that were not there, places that were guessed, and
    prefixes of which less is cached than the plan counts on (what computes one may be aborted in the air)."""


def compare(plan: Plan, arrangement: Arrangement, step: Step, guess_tokens: int) -> Comparison:
    """Checks each request of the plan."""
    scheduled = step.output.num_scheduled_tokens
    if (
        arrangement.caps == scheduled
        and arrangement.positions == step.placed
        and arrangement.drafts == step.drafted
        and len(arrangement.caps) == len(plan.ids)
    ):
        return Comparison(True, [])
    faults: list[str] = []
    # They take more room than planned, and where they find none vLLM looks at no other that waits.
    has_no_room = any(name not in scheduled for name in arrangement.short)
    for place, name in enumerate(arrangement.names):
        if name is None:
            continue
        planned = (plan.positions[place], plan.tokens[place], plan.drafts[place])
        if name not in scheduled:
            # What was padded may have taken the last of what a step may compute, or find too little left itself.
            if arrangement.is_ending(name) or arrangement.padded:
                continue
            if has_no_room and arrangement.waits(name):
                continue
            state = arrangement.state_of(name)
            faults.append(f"{name}: {_words(*planned)} was planned, and it did not run ({state})")
            continue
        real = (step.placed[name], step.computed(name), step.drafted.get(name, 0))
        is_elsewhere = abs(real[0] - planned[0]) > guess_tokens and name not in arrangement.short
        has_more_drafts = real[2] > planned[2] and name not in arrangement.padded
        # What was padded takes its drafts from what others of the step may have.
        is_excused = arrangement.padded or name in arrangement.short
        is_other = real[1] > planned[1] or (real[1] < planned[1] and not is_excused)
        if is_other or has_more_drafts or is_elsewhere:
            faults.append(f"{name}: {_words(*planned)} was planned, {_words(*real)} ran")
    faults += [f"{name} was not planned, and ran" for name in step.names if name not in arrangement.caps]
    return Comparison(False, faults)


def _words(position: int, tokens: int, drafts: int) -> str:
    return f"[{position}, +{tokens}{f', {drafts} drafts' if drafts else ''}]"


def ran_message(step: Step, batch: int, exact: bool) -> dict[str, Any]:
    """`ran` of a step message."""
    message: dict[str, Any] = {"batch": batch, "atUs": step.scheduled_us, "exact": exact}
    if not exact:
        message["ids"] = column(known.number for known in step.lives)
        message["positions"] = column(step.placed[name] for name in step.names)
        message["tokens"] = column(step.computed(name) for name in step.names)
        if step.drafted:
            message["drafts"] = column(step.drafted.get(name, 0) for name in step.names)
    return message


def landed_message(
    step: Step, outputs: dict[int, EngineCoreOutputs], live: LiveRequests, now_us: int, took_us: int
) -> dict[str, Any]:
    """`landed` of a step message. Requests that have ended with this step leave `live`."""
    yielded = {one.request_id: one for group in outputs.values() for one in group.outputs}
    # A loop over all requests of each step: what stands here costs a step more than all the rest (bench/vllm/step-overhead.ts).
    ids: list[int] = []
    produced: list[int] = []
    places: list[int] = []
    flags: list[int] = []
    filled: list[tuple[int, int]] = []
    answering: dict[int, int] = {}
    has_flags = is_elsewhere = False
    placed, scheduled, drafted = step.placed, step.output.num_scheduled_tokens, step.drafted
    thoughts = live.thoughts if live.thoughts.are_told else None
    shares_prefixes = live.shares_prefixes
    for name, known, preemptions in zip(step.names, step.lives, step.preemptions, strict=True):
        request, output = known.request, yielded.get(name)
        if output is None:
            if request.is_finished():
                # Aborted, or given up for an error: it is told among those.
                continue
            count, flag = 0, 0
        else:
            count = len(output.new_token_ids)
            flag = 0 if output.finish_reason is None else STOPPED
            if count == 0 and flag == STOPPED:
                continue
        in_place = placed[name] + scheduled[name]
        if drafted:
            in_place -= drafted.get(name, 0)
        if count > 1:
            in_place += count - 1
        if flag == 0 and request.num_computed_tokens - request.num_in_flight_tokens != in_place:
            # Drafts of the step before were refused, so that it began further back than vLLM thought when it scheduled it; or
            # it was preempted in the air: what it computed is gone, what came out of it is not.
            in_place, is_elsewhere = landed_tokens(request), True
            flag = PREEMPTED if request.num_preemptions != preemptions else 0
        if output is not None and count > 0:
            known.saw_tokens(count, now_us)
            if shares_prefixes and live.has_new_hashes(known):
                filled += [(known.number, number) for number in live.new_hashes(known)]
            if thoughts is not None:
                answering[len(ids)] = known.answering_from(output.new_token_ids, thoughts)
        if flag != 0:
            has_flags = True
            if flag == STOPPED:
                live.remove(known)
        ids.append(known.number)
        produced.append(count)
        places.append(in_place)
        flags.append(flag)
    message: dict[str, Any] = {
        "step": step.seq,
        "atUs": now_us,
        "durationUs": took_us,
        "ids": column(ids),
        "produced": column(produced),
    }
    if is_elsewhere:
        message["computed"] = column(places)
    if has_flags:
        message["flags"] = column(flags)
    if any(index >= 0 for index in answering.values()):
        message["answeringFrom"] = column(answering.get(place, -1) for place in range(len(ids)))
    if filled:
        message["filledIds"] = column(number for number, _ in filled)
        message["filledHashes"] = column(number for _, number in filled)
    return message
