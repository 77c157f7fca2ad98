"""Arranges vLLM's queues so that vLLM itself schedules just what the plan says."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import add
from typing import TYPE_CHECKING, cast

from vllm.v1.core.sched.request_queue import RequestQueue, create_request_queue
from vllm.v1.request import Request, RequestStatus

from .plan import Plan
from .requests import Live, LiveRequests

if TYPE_CHECKING:
    from .scheduler import PlannedScheduler

WAITING_QUEUES = ("waiting", "skipped_waiting", "kv_holding_waiting")
"""vLLM's queues of requests that do not run: not each version has all of them."""


class Arrangement:
    """What vLLM may schedule in one step, by the names of requests."""

    __slots__ = (
        "_plan",
        "afresh",
        "behind",
        "by_name",
        "caps",
        "drafts",
        "grown",
        "held",
        "is_elsewhere",
        "names",
        "padded",
        "positions",
        "short",
        "waiting",
    )

    def __init__(self, plan: Plan, live: LiveRequests, guess_tokens: int) -> None:
        # Each of these goes through all requests: no loop does what needs to be done for few of them.
        found = list(map(live.by_number, plan.ids))
        tokens = plan.tokens if plan.drafts is None else list(map(add, plan.tokens, plan.drafts))
        positions, drafts = plan.positions, plan.drafts
        self._plan = plan
        self.by_name = live.by_name
        self.names: list[str | None]
        """Of the plan's requests, in its order; None for one that has ended meanwhile."""
        if all(found):
            lives = cast(list[Live], found)
            names = [known.name for known in lives]
            self.names = cast(list[str | None], names)
        else:
            self.names = [None if known is None else known.name for known in found]
            still = [place for place, known in enumerate(found) if known is not None]
            lives = [cast(Live, found[place]) for place in still]
            names = [known.name for known in lives]
            tokens, positions = [tokens[place] for place in still], [positions[place] for place in still]
            drafts = None if drafts is None else [drafts[place] for place in still]
        self.caps = dict(zip(names, tokens, strict=True))
        """Most tokens of each, drafts included. What is not here gets none."""
        self.positions: dict[str, int] = {}
        """Tokens that are to be in place, of those that begin or go on from elsewhere. Others are where the plan has them."""
        self.is_elsewhere = False
        """Some that run are not where the plan has them."""
        self.drafts: dict[str, int] = {}
        """Of those that are to verify any."""
        if drafts is not None:
            self.drafts = {name: count for name, count in zip(names, drafts, strict=True) if count > 0}
        self.waiting: list[Request] = []
        """Those that are not running yet."""
        self.afresh: list[Request] = []
        """Those that run, and are to start again without the KV that they have."""
        self.behind: list[Request] = []
        """Those that run, and are to go on from further than they are: from the longer prefix of another request."""
        self.padded: set[str] = set()
        """Those that vLLM gave drafts that no plan asked for."""
        self.short: set[str] = set()
        """Those that begin, here or in a step before, and of which less is cached than the plan counts on."""
        self.held: set[str] = set()
        """Those of which vLLM runs less than planned, if any: their pieces would end where they may not."""
        self.grown: set[str] = set()
        """Those that run further than planned, to where their pieces may end."""
        running = RequestStatus.RUNNING
        others = [
            (known, position)
            for known, position in zip(lives, positions, strict=True)
            if known.request.num_computed_tokens != position or known.request.status is not running
        ]
        for known, position in others:
            request = known.request
            runs = request.status is running
            self.positions[known.name] = position
            self.is_elsewhere |= runs
            if not runs:
                self.waiting.append(request)
            # A little more or less may be drafts, accepted or refused where the planner did not count on it.
            elif request.num_computed_tokens > position + (guess_tokens if position > 0 else 0):
                self.afresh.append(request)
            elif request.num_computed_tokens < position - guess_tokens:
                self.behind.append(request)

    def _request(self, name: str) -> Request:
        known = self.by_name(name)
        assert known is not None
        return known.request

    def begins(self, request: Request) -> None:
        """It has lost its KV, and begins again in this very step."""
        self.waiting.append(request)
        self.positions[request.request_id] = self._plan.positions[self.names.index(request.request_id)]

    def is_ending(self, name: str) -> bool:
        """Steps in the air reach its last token for sure, as vLLM has seen since the plan was made: it schedules no other."""
        request = self._request(name)
        in_air = request.num_output_placeholders
        most = request.num_prompt_tokens + request.max_tokens
        return in_air > 0 and request.num_computed_tokens + 2 - in_air >= most

    def cut(self, name: str, tokens: int) -> None:
        """No more of it than so many, if any."""
        self.caps[name] = max(1, min(self.caps[name], tokens))

    def ends_at(self, name: str, tokens: int, planned: int) -> None:
        """So many of it, where that is other than planned."""
        if tokens > planned:
            self.caps[name] = tokens
            self.grown.add(name)
        elif tokens < planned:
            self.held.add(name)

    @property
    def took_more(self) -> bool:
        """Some took more than was planned: others may find less than they should."""
        return bool(self.padded or self.grown)

    def waits(self, name: str) -> bool:
        """It does not run."""
        return bool(self._request(name).status != RequestStatus.RUNNING)

    def state_of(self, name: str) -> str:
        """Why vLLM may not have taken it, for the log."""
        request = self._request(name)
        stale = (
            f", {request.num_stale_output_tokens} tokens are stale" if request.num_stale_output_tokens else ""
        )
        return f"{request.status.name.lower()}, {request.num_computed_tokens} tokens are computed{stale}"


def evict(scheduler: "PlannedScheduler", plan: Plan, arrangement: Arrangement, live: LiveRequests) -> None:
    """Drops the KV that the plan wants dropped. vLLM puts these requests back to its waiting ones."""
    for known in map(live.by_number, plan.evict):
        if known is not None:
            _drop(scheduler, known.request, arrangement)
    for request in arrangement.behind:
        if request.status != RequestStatus.RUNNING:
            continue
        name = request.request_id
        if scheduler.cached_tokens(request) < arrangement.positions[name]:
            # It goes on with what it has, which is more than it would find.
            arrangement.short.add(name)
        else:
            arrangement.afresh.append(request)
    for request in arrangement.afresh:
        _drop(scheduler, request, arrangement)


def _drop(scheduler: "PlannedScheduler", request: Request, arrangement: Arrangement) -> None:
    if request.status != RequestStatus.RUNNING:
        return
    scheduler.running.remove(request)
    scheduler.preempt_as_planned(request, time.monotonic())
    if request.request_id in arrangement.caps:
        arrangement.begins(request)


@contextmanager
def arranged(scheduler: "PlannedScheduler", arrangement: Arrangement) -> Iterator[None]:
    """Within, vLLM sees only what the plan takes, in the plan's order.

    Of the running requests those of the plan come first: where KV is short all the same, vLLM preempts from the end. Of the
    waiting ones it sees no others: it looks up the prefixes of the first, each step anew, even where it may not begin.
    """
    caps = arrangement.caps
    if len(caps) - len(arrangement.waiting) < len(scheduler.running):
        # As a sort by places in the plan would have it, which takes longer.
        lives = map(arrangement.by_name, caps)
        runs = RequestStatus.RUNNING
        planned = [known.request for known in lives if known is not None and known.request.status is runs]
        others = [request for request in scheduler.running if request.request_id not in caps]
        scheduler.running = planned + others
        scheduler.is_reordered = True
    # Where nothing waits there is nothing to hide, and what is preempted finds its place by itself.
    queues = {name: queue for name, queue in _queues(scheduler) if queue}
    for name, queue in queues.items():
        shown = create_request_queue(scheduler.policy)
        for request in _in_sight(scheduler, arrangement, queue):
            queue.remove_request(request)
            shown.add_request(request)
        setattr(scheduler, name, shown)
    try:
        yield
    finally:
        for name, queue in queues.items():
            # What was preempted or could not begin goes before those that were not in sight, as vLLM itself would have it.
            # `prepend_requests` turns them round.
            queue.prepend_requests(reversed(list(getattr(scheduler, name))))
            setattr(scheduler, name, queue)


def _queues(scheduler: "PlannedScheduler") -> list[tuple[str, RequestQueue]]:
    return [(name, getattr(scheduler, name)) for name in WAITING_QUEUES if hasattr(scheduler, name)]


def _in_sight(scheduler: "PlannedScheduler", arrangement: Arrangement, queue: RequestQueue) -> list[Request]:
    """Which requests of a queue vLLM is to see: those of the plan, then those that wait for something of vLLM's own. It would
    never ask again whether a grammar is there, or end a request whose grammar cannot be compiled. Before those of the plan, one
    whose grammar is there just now would end vLLM's look at the queue: it may run, but not in this step."""
    planned = [request for request in arrangement.waiting if request in queue]
    if not scheduler.has_vllms_own():
        return planned
    return planned + [
        request for request in queue if scheduler.is_vllms_own(request) and request not in planned
    ]
