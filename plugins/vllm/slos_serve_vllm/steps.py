"""Steps between the moment they are scheduled and the moment their outcome is known, and how they are told."""

from dataclasses import dataclass
from operator import eq
from typing import Any, cast

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs

from .arrange import Arrangement
from .frames import column
from .plan import Plan
from .requests import Live, LiveRequests, landed_tokens
from .tokens_out import TokensOut


@dataclass(slots=True, eq=False)
class Step:
    """A step that is in the air."""

    output: SchedulerOutput
    scheduled_us: int
    began_us: int
    """When the engine could begin with it, if no other step was in the air."""
    drafted: dict[str, int]
    """By name: drafts to verify, where there are any."""
    names: list[str]
    """Its requests, in one order with `lives`."""
    lives: list[Live]
    evictions: int
    """`LiveRequests.evictions` when it was scheduled."""
    departures: int
    """`LiveRequests.departures`, likewise."""
    seq: int = 0
    """Of the message that told of it; 0: the planner does not know of it."""
    _placed: dict[str, int] | None = None

    def drop_ended(self) -> None:
        """Only requests that are still live, for a planner that does not know the others."""
        self.lives = [known for known in self.lives if not known.request.is_finished()]
        self.names = [known.name for known in self.lives]

    def placed(self) -> dict[str, int]:
        """By name: tokens whose KV was in place before."""
        if self._placed is None:
            self._placed = {new.req_id: new.num_computed_tokens for new in self.output.scheduled_new_reqs}
            cached = self.output.scheduled_cached_reqs
            self._placed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        return self._placed

    def computed(self, name: str) -> int:
        """Known tokens that it computes of a request, drafts not counted."""
        return self.output.num_scheduled_tokens[name] - self.drafted.get(name, 0)

    def reaches(self, name: str, yielded: int) -> int:
        """Tokens whose KV should be in place when it has landed, with so many that came out of it."""
        return self.placed()[name] + self.computed(name) + max(0, yielded - 1)


def step_of(
    output: SchedulerOutput, live: LiveRequests, before: Step | None, scheduled_us: int, began_us: int
) -> Step:
    """What vLLM has scheduled. Requests that the planner knows nothing of are left out. `before`: the step before it."""
    drafts = output.scheduled_spec_decode_tokens
    drafted = {name: len(tokens) for name, tokens in drafts.items()} if drafts else {}
    names = list(output.num_scheduled_tokens)
    if before is not None and before.names == names and before.departures == live.departures:
        lives = before.lives
    else:
        lives = cast(list[Live], list(map(live.by_name, names)))
        if not all(lives):
            lives = list(filter(None, lives))
            names = [known.name for known in lives]
    return Step(output, scheduled_us, began_us, drafted, names, lives, live.evictions, live.departures)


@dataclass(slots=True)
class Comparison:
    """What was scheduled against what was planned."""

    exact: bool
    """To the token and the draft: nothing more need be told."""
    faults: list[str]
    """Where vLLM did not do what it was told to, in words. None are: drafts that were not there, places that were guessed,
    prefixes of which less is cached than the plan counts on (what computes one may be aborted in the air), and pieces that may
    not end where they were to."""


def compare(plan: Plan, arrangement: Arrangement, step: Step, guess_tokens: int) -> Comparison:
    """Checks each request of the plan."""
    scheduled = step.output.num_scheduled_tokens
    if (
        arrangement.caps == scheduled
        and not arrangement.grown
        and arrangement.drafts == step.drafted
        and len(arrangement.caps) == len(plan.ids)
        and _is_placed(plan, arrangement, step)
    ):
        return Comparison(True, [])
    placed = step.placed()
    faults: list[str] = []
    # They take more room than planned, and where they find none vLLM looks at no other that waits.
    has_no_room = any(name not in scheduled for name in arrangement.short | arrangement.held)
    for place, name in enumerate(arrangement.names):
        if name is None:
            continue
        planned = (plan.positions[place], plan.tokens[place], arrangement.drafts.get(name, 0))
        if name not in scheduled:
            # What took more may have taken the last of what a step may compute, or find too little left itself.
            if arrangement.is_ending(name) or arrangement.took_more or name in arrangement.held:
                continue
            if has_no_room and arrangement.waits(name):
                continue
            state = arrangement.state_of(name)
            faults.append(f"{name}: {_words(*planned)} was planned, and it did not run ({state})")
            continue
        real = (placed[name], step.computed(name), step.drafted.get(name, 0))
        is_elsewhere = abs(real[0] - planned[0]) > guess_tokens and name not in arrangement.short
        has_more_drafts = real[2] > planned[2] and name not in arrangement.padded
        # What took more took it from what others of the step may have.
        is_excused = arrangement.took_more or name in arrangement.short or name in arrangement.held
        is_more = real[1] > planned[1] and name not in arrangement.grown
        is_other = is_more or (real[1] < planned[1] and not is_excused)
        if is_other or has_more_drafts or is_elsewhere:
            faults.append(f"{name}: {_words(*planned)} was planned, {_words(*real)} ran")
    faults += [f"{name} was not planned, and ran" for name in step.names if name not in arrangement.caps]
    return Comparison(False, faults)


def _is_placed(plan: Plan, arrangement: Arrangement, step: Step) -> bool:
    """All requests of the plan went on from where it has them."""
    if arrangement.is_elsewhere:
        return all(map(eq, map(step.placed().get, cast(list[str], arrangement.names)), plan.positions))
    # Those that ran were looked at one by one, and no other begins with more than the plan has: a sum tells whether one has less.
    places = step.output.scheduled_cached_reqs.num_computed_tokens
    begun = sum(new.num_computed_tokens for new in step.output.scheduled_new_reqs)
    return sum(places) + begun == sum(plan.positions)


def _words(position: int, tokens: int, drafts: int) -> str:
    return f"[{position}, +{tokens}{f', {drafts} drafts' if drafts else ''}]"


def ran_message(step: Step, batch: int, exact: bool) -> dict[str, Any]:
    """`ran` of a step message."""
    message: dict[str, Any] = {"batch": batch, "atUs": step.scheduled_us, "exact": exact}
    if not exact:
        message["ids"] = column(known.number for known in step.lives)
        placed = step.placed()
        message["positions"] = column(placed[name] for name in step.names)
        message["tokens"] = column(step.computed(name) for name in step.names)
        if step.drafted:
            message["drafts"] = column(step.drafted.get(name, 0) for name in step.names)
    return message


@dataclass(slots=True)
class _Landed:
    """What became of the requests of a step that are told of, in one order."""

    lives: list[Live]
    produced: list[int] | None
    """None: these are all of the step, and a token came out of each."""
    stopped: list[Live]
    """Those that have ended with it."""
    preempted: list[Live]
    """Those that have lost their KV in the air."""
    computed: dict[int, int]
    """Tokens whose KV is in place, by place, where it is not what the step was to bring it to."""


def _landed(step: Step, outputs: list[EngineCoreOutput], moves: bool) -> _Landed:
    """`moves`: some requests may be anywhere else than where the step was to bring them."""
    # Nearly all steps: looked through one by one they cost more than all the rest that the plug-in does.
    if not moves and [one.request_id for one in outputs] == step.names:
        produced = [len(one.new_token_ids) for one in outputs]
        if produced.count(1) == len(produced):
            ends = [place for place, one in enumerate(outputs) if one.finish_reason is not None]
            return _Landed(step.lives, None, [step.lives[place] for place in ends], [], {})
    yielded = {one.request_id: one for one in outputs}
    lives: list[Live] = []
    produced = []
    landed = _Landed(lives, produced, [], [], {})
    for known, output in zip(step.lives, map(yielded.get, step.names), strict=True):
        has_ended = False
        if output is None:
            if known.request.is_finished():
                # Aborted, or given up for an error: it is told among those.
                continue
            count = 0
        else:
            count = len(output.new_token_ids)
            has_ended = output.finish_reason is not None
            if has_ended and count == 0:
                continue
        if has_ended:
            landed.stopped.append(known)
        elif moves:
            in_place = landed_tokens(known.request)
            if in_place != step.reaches(known.name, count):
                # Drafts of the step before were refused, so that it began further back than vLLM thought when it scheduled it;
                # or it was preempted in the air: what it computed is gone, what came out of it is not.
                landed.computed[len(lives)] = in_place
                if known.evicted_at > step.evictions:
                    landed.preempted.append(known)
        lives.append(known)
        produced.append(count)
    return landed


def landed_message(
    step: Step,
    outputs: dict[int, EngineCoreOutputs],
    live: LiveRequests,
    tokens_out: TokensOut,
    now_us: int,
    took_us: int,
    has_drafts: bool,
) -> dict[str, Any]:
    """`landed` of a step message. Requests that have ended with this step leave `live`. `has_drafts`: some may be drafted."""
    results = [one for group in outputs.values() for one in group.outputs]
    # Without drafts only an eviction has a request anywhere else.
    landed = _landed(step, results, has_drafts or step.evictions < live.evictions)
    lives = landed.lives
    if landed.produced is None:
        tokens_out.came_of_all(lives, step.output.num_scheduled_tokens, now_us)
    else:
        tokens_out.came(lives, landed.produced, now_us)
    filled = tokens_out.filled()
    for known in landed.stopped:
        live.remove(known)
    message: dict[str, Any] = {"step": step.seq, "atUs": now_us, "durationUs": took_us}
    columns = _columns(step, landed, results, live)
    if landed.produced is not None or columns:
        message["ids"] = column([known.number for known in lives])
        message["produced"] = column([1] * len(lives) if landed.produced is None else landed.produced)
        message |= columns
    for name, few in (("stopped", landed.stopped), ("preempted", landed.preempted)):
        if few:
            message[name] = column(known.number for known in few)
    if filled:
        message["filledIds"] = column([number for number, _ in filled])
        message["filledHashes"] = column([number for _, number in filled])
    return message


def _columns(
    step: Step, landed: _Landed, results: list[EngineCoreOutput], live: LiveRequests
) -> dict[str, bytes]:
    """What is told of each request besides, where there is any."""
    columns: dict[str, bytes] = {}
    if not landed.computed and not live.thoughts.are_told:
        return columns
    counts = [1] * len(landed.lives) if landed.produced is None else landed.produced
    if landed.computed:
        reached = [step.reaches(known.name, count) for known, count in zip(landed.lives, counts, strict=True)]
        columns["computed"] = column(landed.computed.get(place, of) for place, of in enumerate(reached))
    if live.thoughts.are_told:
        tokens = {one.request_id: one.new_token_ids for one in results}
        answering = [
            known.answering_from(tokens[known.name], live.thoughts) if count > 0 else -1
            for known, count in zip(landed.lives, counts, strict=True)
        ]
        if any(index >= 0 for index in answering):
            columns["answeringFrom"] = column(answering)
    return columns
