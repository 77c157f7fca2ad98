"""Asks the planner for the plan of each step and tells it what became of the last ones. Knows when there is no plan to be had."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.request import Request

from .arrange import Arrangement
from .client import Client, Message
from .cores import current_core
from .frames import FrameError, column
from .late_log import LateLog
from .patience import Patience
from .plan import Plan, nothing, read_plan
from .requests import LiveRequests, waits_for_grammar
from .steps import Step, compare, landed_message, ran_message, step_of
from .tokens_out import TokensOut

_SHOWN_FAULTS = 5
_PAUSE_US = 500_000
"""So long after a step the next one is no longer what follows it: vLLM was paused, or put to sleep."""
_STEPS_PER_CORE = 8
"""Which core this thread is on is told so seldom: as a rule it stays there, and the look is some hundredths of what planning
adds to a step."""
_log = logging.getLogger("vllm.slos_serve")


@dataclass
class Counters:
    """Since the start."""

    planned_steps: int = 0
    """Steps that ran as planned, or nearly."""
    own_steps: int = 0
    """Steps that vLLM scheduled by itself."""
    late_plans: int = 0
    renewed_plans: int = 0
    """Plans that others took the place of, since requests had arrived that they did not know of."""
    late_renewals: int = 0
    """Plans that were run all the same: those that were to take their places were late."""
    short_prefixes: int = 0
    """Requests that began with less of their prompt cached than the plan counted on."""
    moved_ends: int = 0
    """Pieces of prompts that ended elsewhere than planned, since they may not end there."""
    mismatches: int = 0
    """Steps of a plan in which vLLM did something else."""
    starved_steps: int = 0
    """Steps of vLLM's own because nothing was planned for long, or nothing that was could run."""
    connections: int = 0


class Conductor:
    """One engine rank's side of the planning. `plan_of_step`, `scheduled`, `landed`, in this order, for each step; with
    vLLM's asynchronous scheduling a step is scheduled before the last one has landed."""

    def __init__(
        self,
        client: Client,
        live: LiveRequests,
        tokens_out: TokensOut,
        deadline_s: float | None,
        hang_s: float,
        guess_tokens: int,
        clock_us: Callable[[], int],
        free_tokens: Callable[[], int],
    ) -> None:
        """`free_tokens`: KV that the engine has free, what it keeps as cache included."""
        self.live = live
        self.counters = Counters()
        self._client = client
        self._tokens_out = tokens_out
        self.patience = Patience(deadline_s)
        self._hang_s = hang_s
        self._guess_tokens = guess_tokens
        self._clock_us = clock_us
        self._free_tokens = free_tokens
        self._connection = 0
        self._seq = 0
        self._asked = 0
        """Number of the message that the planner owes a plan for; 0: none."""
        self._owing_since_s = 0.0
        self._is_led = False
        self._is_late = False
        """The step that is scheduled now goes without its plan, since that is late."""
        self._late_log = LateLog()
        self._idle_until_us: float | None = None
        """The last plan was to run nothing before this time."""
        self._in_air: deque[Step] = deque()
        self._last: Step | None = None
        """The step that was scheduled last."""
        self._entered_us = 0
        """When the step that is scheduled now was asked for."""
        self._busy_from_us: int | None = None
        """When the last step landed, where more was to do at once; None: the engine has had nothing to do since."""
        self._idle_since_s: float | None = None
        """Since when plans have run nothing, though there were requests."""
        self._is_stuck = False
        """No request of the last plan could run, since others have the room for its pictures: no plan need ever run these."""
        self._forget()

    def _forget(self) -> None:
        """Nothing is left to be told."""
        self._arrived: list[Message] = []
        self._landed: list[Message] = []
        self._ready: list[int] = []
        self._cancelled: list[int] = []
        self._lost: list[int] = []

    # -- What happens outside of steps

    def arrived(self, request: Request) -> None:
        """vLLM has taken a request."""
        known = self.live.add(request)
        if self._is_told():
            self._arrived.append(self.live.arrival(known))

    def lost(self, request: Request) -> None:
        """vLLM has dropped a request's KV by itself."""
        known = self.live.by_name(request.request_id)
        if known is not None and self._is_told():
            self._lost.append(known.number)

    def wait_for_planner(self, timeout_s: float) -> bool:
        """Looks for a planner at once, and for so long. For the start, where there is time."""
        self._client.try_now()
        return self._client.wait_until_ready(timeout_s)

    def notice(self, names: Iterable[str], count: int) -> None:
        """Compares with the requests that vLLM has (`count` of them): others have ended. Finds grammars that are ready."""
        if count != len(self.live):
            for known in self.live.ended(names):
                self.live.remove(known)
                if self._is_told():
                    self._cancelled.append(known.number)
        if self.live.waiting_for_grammar:
            for known in [
                one for one in self.live if one.waits_for_grammar and not waits_for_grammar(one.request)
            ]:
                self.live.grammar_is_ready(known)
                if self._is_told():
                    self._ready.append(known.number)

    # -- A step

    def plan_of_step(self) -> Plan | None:
        """The plan of the step that is to be scheduled now, or None: vLLM schedules it by itself."""
        self._entered_us = self._clock_us()
        self._is_late = False
        plan = self._plan()
        if plan is not None and not self._is_led:
            _log.info("slos-serve: steps are planned")
        # Of late plans the log has sums.
        self._is_led = self._client.ready and (self._is_led or plan is not None)
        return plan

    def _plan(self) -> Plan | None:
        self._client.tick()
        if not self._client.ready:
            return None
        if self._connection != self._client.opened:
            self._tell_everything()
        if len(self.live) == 0:
            self._tell(None, None)
            return nothing()
        if self._is_starved() or self._is_stuck:
            self._idle_since_s, self._is_stuck = None, False
            self.counters.starved_steps += 1
            return None
        if self._is_to_idle():
            return nothing()
        plan = self._take() if self._asked > 0 else self._answer()
        if plan is not None and self._is_outdated(plan):
            plan = self._renewed(plan)
        if plan is None:
            self._is_late = self._client.ready
        elif plan.batch == 0:
            self._idle_until_us = float("inf") if plan.wake_us is None else plan.wake_us
        return plan

    def _is_outdated(self, plan: Plan) -> bool:
        """It does not know of what happened while the last step was computed. Where it runs nothing, that would wait for as
        long as nothing else happens; where it runs, what has arrived would wait for the step after it."""
        if plan.batch == 0:
            return self._has_news()
        return bool(self._arrived or self._ready) and self.patience.is_worth_another(plan.predicted_us / 1e6)

    def _renewed(self, plan: Plan) -> Plan | None:
        """The plan that takes its place. Where that is late the old one is as good as ever."""
        began_s = time.monotonic()
        renewed = self._answer()
        if plan.batch > 0:
            self.patience.renewal_took(time.monotonic() - began_s)
        if renewed is not None:
            self.counters.renewed_plans += plan.batch > 0
            return renewed
        if plan.batch == 0:
            return None
        self.counters.late_renewals += 1
        plan.is_withdrawn = True
        return plan

    def _answer(self) -> Plan | None:
        """Asks, and waits for the answer."""
        began_s = time.monotonic()
        self._ask(None)
        plan = self._take()
        if self._client.ready:
            self.patience.answer_took(time.monotonic() - began_s)
        return plan

    def _is_starved(self) -> bool:
        """Requests could run, and for long no plan has run any: whatever the planner means by it, no request waits for ever."""
        return self._idle_since_s is not None and time.monotonic() - self._idle_since_s > self._hang_s

    def scheduled(self, output: SchedulerOutput, plan: Plan | None, arrangement: Arrangement | None) -> None:
        """vLLM has scheduled a step. Tells the planner of it, which makes the plan of the next one meanwhile."""
        step = step_of(output, self.live, self._last, self._clock_us(), self._began_us())
        runs = bool(output.num_scheduled_tokens)
        if runs:
            self._in_air.append(step)
            self._last = step
            self._late_log.step(self._is_late)
        elif not self._in_air:
            self._busy_from_us = None
        if runs or self._in_air or len(self.live) == self.live.waiting_for_grammar:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = time.monotonic()
        if plan is None or arrangement is None:
            self.counters.own_steps += runs
            self.counters.late_plans += runs and self._is_late
            self._tell(ran_message(step, 0, False) if runs else None, step)
            return
        if plan.batch == 0 and not runs:
            return
        self.counters.planned_steps += runs
        self.counters.short_prefixes += len(arrangement.short)
        moved = arrangement.held | arrangement.grown
        self.counters.moved_ends += len(moved)
        self._is_stuck = bool(moved) and not runs and not self._in_air
        comparison = compare(plan, arrangement, step, self._guess_tokens)
        if comparison.faults:
            self._count_mismatch(comparison.faults)
        # What is withdrawn is no plan any more: the planner hears of a step of the engine's own.
        batch = 0 if plan.is_withdrawn else plan.batch
        self._tell(ran_message(step, batch, comparison.exact and batch > 0), step)

    def _began_us(self) -> int:
        """What is between two steps is a part of the second: tokens come that much later."""
        busy_us, entered_us = self._busy_from_us, self._entered_us
        return entered_us if busy_us is None or entered_us - busy_us > _PAUSE_US else busy_us

    def landed(self, output: SchedulerOutput, outputs: dict[int, EngineCoreOutputs]) -> None:
        """The outcome of a step is known."""
        while self._in_air and self._in_air[0].output is not output:
            # vLLM gave it up without an outcome.
            self._in_air.popleft()
        if not self._in_air:
            return
        step = self._in_air.popleft()
        now_us = self._clock_us()
        took_us = max(0, now_us - max(step.began_us, self._busy_from_us or 0))
        self._busy_from_us = now_us
        self.patience.step_took(took_us / 1e6)
        message = landed_message(
            step, outputs, self.live, self._tokens_out, now_us, took_us, self._guess_tokens > 0
        )
        if step.seq > 0 and self._is_told():
            self._landed.append(message)
        if len(self.live) == 0 and not self._in_air:
            self._busy_from_us = self._last = None
            self._tokens_out.all_have_ended()
            # It may be long until the next step has something to tell.
            self._tell(None, None)

    # -- Messages

    def _is_told(self) -> bool:
        """There is a planner, and it knows of all that was before. Where there is none, nothing is kept for it: a new one is
        told how far each request has come."""
        return self._client.ready and self._connection == self._client.opened

    def _has_news(self) -> bool:
        return bool(self._arrived or self._landed or self._ready or self._cancelled or self._lost)

    def _is_to_idle(self) -> bool:
        until = self._idle_until_us
        if until is None:
            return False
        if self._has_news() or self._clock_us() >= until:
            self._idle_until_us = None
            return False
        return True

    def _tell(self, ran: Message | None, step: Step | None) -> None:
        if self._is_told() and (ran is not None or self._has_news()):
            self._ask(ran)
            if step is not None:
                step.seq = self._asked

    def _ask(self, ran: Message | None) -> None:
        """Tells all that is new, and with it asks for the plan of the next step."""
        self._seq += 1
        message: dict[str, Any] = {
            "type": "step",
            "seq": self._seq,
            "nowUs": self._clock_us(),
            "ran": ran,
            "landed": self._landed,
            "arrived": self._arrived,
            "kvFreeTokens": self._free_tokens(),
        }
        renews_from_s = self.patience.renews_from_s
        if renews_from_s is not None:
            # To a tenth of a millisecond: it changes with every answer, and the planner goes by it roughly.
            message["renewsFromUs"] = round(renews_from_s * 1e4) * 100
        if self._seq % _STEPS_PER_CORE == 1:
            core = current_core()
            if core is not None:
                message["core"] = core
        for name, numbers in (("ready", self._ready), ("cancelled", self._cancelled), ("lost", self._lost)):
            if numbers:
                message[name] = column(numbers)
        self._forget()
        self._idle_until_us = None
        if self._client.send(message):
            if self._asked == 0:
                self._owing_since_s = time.monotonic()
            self._asked = self._seq

    def _take(self) -> Plan | None:
        """The plan that is owed, if it comes in time."""
        least_s = float(self._client.planner.get("maxLagUs", 5000)) / 1e6
        end_s = time.monotonic() + self.patience.limit_s(least_s)
        while self._client.ready and self._asked > 0:
            message = self._client.receive(max(0.0, end_s - time.monotonic()))
            if message is None:
                self._be_late()
                return None
            try:
                plan = self._read(message)
            except FrameError as error:
                self._client.lose(str(error))
                return None
            if plan is not None:
                self._asked = 0
                self.patience.plan_was_there()
                return plan
        return None

    def _read(self, message: Message) -> Plan | None:
        """The plan that was asked for; None for an older one, which is no answer any more."""
        kind = message.get("type")
        if kind == "goodbye":
            raise FrameError(f"{message.get('message')}")
        if kind != "plan":
            raise FrameError(f"it said {str(kind)[:40]} where a plan was asked for")
        plan = read_plan(message)
        self._owing_since_s = time.monotonic()
        return plan if plan.seq == self._asked else None

    def _be_late(self) -> None:
        if not self._client.ready:
            return
        self.patience.plan_was_late()
        if time.monotonic() - self._owing_since_s > self._hang_s:
            self._client.lose(f"it has owed an answer for {self._hang_s:g} s")

    def _tell_everything(self) -> None:
        """A new connection knows of nothing: of no request, nor of the steps in the air."""
        self._connection = self._client.opened
        self.counters.connections += 1
        self._seq = self._asked = 0
        self.patience.plan_was_there()
        self._forget()
        self._tokens_out.settle()
        self._arrived = [self.live.arrival_anew(known) for known in self.live]
        for step in self._in_air:
            step.drop_ended()
            self._ask(ran_message(step, 0, False))
            step.seq = self._seq

    def _count_mismatch(self, faults: list[str]) -> None:
        self.counters.mismatches += 1
        if self.counters.mismatches <= _SHOWN_FAULTS:
            faults = [*faults[:_SHOWN_FAULTS], f"{self._free_tokens()} tokens of KV are free"]
            _log.warning("slos-serve: a step is not as planned: %s", "; ".join(faults))

    def summary(self) -> str:
        """All counters, for the log."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self.counters).items())
