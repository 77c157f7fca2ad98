"""vLLM's schedulers, which do what the planner says, step by step, and what vLLM would do by itself when it says nothing."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import vllm
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from .adapters import AdapterPlaces
from .arrange import Arrangement, arranged, evict
from .blocks import free_tokens, in_use, is_of_this_step, kv_shape, prefix_of, room_behind
from .caps import capped
from .client import Client
from .conductor import Conductor
from .config import read_config, socket_of
from .engine import depth_of, engine_message, most_adapters
from .hooks import check_hooks
from .pieces import aligned, cuts_pictures, to_picture_end
from .requests import LiveRequests
from .spawn import NOT_INSTALLED, Starter, command_of, private_folder
from .support import check_support
from .thinking import Thoughts
from .tokens_out import TokensOut

_OTHER_RANKS_WAIT_S = 10.0
_log = logging.getLogger("vllm.slos_serve")

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    Base = Scheduler
else:
    Base = object


def vllm_version() -> str:
    """Of the vLLM that this runs in, as "0.32.0"."""
    return str(vllm.__version__)


def monotonic_us() -> int:
    """Monotonic time, µs: all times that the planner is told."""
    return time.monotonic_ns() // 1000


class PlannedScheduler(Base):
    """Laid over one of vLLM's schedulers. vLLM goes on to own requests, blocks and outputs: only what a step takes is decided
    elsewhere, and only for this one step."""

    clock_us: Callable[[], int] = staticmethod(monotonic_us)
    """A test may put a clock of its own here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arrangement: Arrangement | None = None
        self._preempts_as_planned = False
        self.is_reordered = False
        self._unplanned: set[str] = set()
        config = read_config(self.vllm_config.additional_config)
        check_hooks(self, vllm_version())
        self.kv_shape = kv_shape(self)
        check_support(self)
        self._admission = (self.scheduler_reserve_full_isl, self.kv_cache_manager.watermark_blocks)
        self.scheduler_reserve_full_isl, self.kv_cache_manager.watermark_blocks = False, 0
        self._adapters = AdapterPlaces(most_adapters(self))
        # Asked for each request of each step: what does nothing is not called.
        self._looks_ahead = self.num_prefill_lookahead > 0
        self._cuts_pictures = cuts_pictures(self)
        self._tell_caps: Callable[[dict[str, int] | None], None] = lambda _: None
        if self.num_spec_tokens == 0 and not self._looks_ahead:
            reserve, self._tell_caps = capped(self._unplanned)
            self._reserve_prefill_lookahead = reserve  # type: ignore[method-assign, assignment]
        self._guess_tokens = self.num_spec_tokens * depth_of(self)
        hashes_per_block = (
            self.block_size // self.hash_block_size if self.cache_config.enable_prefix_caching else 0
        )
        thoughts = Thoughts(self.structured_output_manager)
        live = LiveRequests(self.clock_us, self.max_model_len, hashes_per_block, thoughts)
        socket = socket_of(config, self.vllm_config.instance_id)
        if config.socket is None:
            private_folder(socket.parent)
        command = command_of(config) if config.start else None
        if config.start and command is None:
            _log.error("slos-serve: no planner can be started: %s", NOT_INSTALLED)
        # The ranks of one vLLM share a planner, which the first of them starts.
        first_s = 0.0 if self.parallel_config.data_parallel_index == 0 else _OTHER_RANKS_WAIT_S
        self._starter = Starter(command, socket, config.arguments, first_s) if command is not None else None
        engine = engine_message(self, config, vllm_version(), thoughts.are_told)
        self._client = Client(socket, engine, config.hang_seconds, self._starter)
        deadline_s = None if config.deadline_ms is None else config.deadline_ms / 1e3
        self.conductor = Conductor(
            self._client,
            live,
            TokensOut(live, 1 + self.num_spec_tokens, self.hash_block_size),
            deadline_s,
            config.hang_seconds,
            self._guess_tokens,
            self.clock_us,
            lambda: free_tokens(self),
        )
        # Nothing comes to a socket of this vLLM's own by itself.
        is_alone = config.socket is None and command is None
        self.conductor.wait_for_planner(0.0 if is_alone else config.start_seconds)

    # -- What vLLM calls

    def add_request(self, request: Request) -> None:
        is_new = request.request_id not in self.requests
        super().add_request(request)
        if request.resumable:
            # Its prompt grows while it runs: vLLM schedules it by itself, in what a plan leaves of a step.
            self._unplanned.add(request.request_id)
        elif is_new:
            self.conductor.arrived(request)

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        if self._unplanned:
            self._unplanned &= self.requests.keys()
        self.conductor.notice(self.requests, len(self.requests) - len(self._unplanned))
        plan = self.conductor.plan_of_step()
        if plan is None:
            self._restore_order()
            with self._adapters.fit(self, lambda request: True), self._vllm_admits():
                output = super().schedule(throttle_prefills)
            self.conductor.scheduled(output, None, None)
            return output
        arrangement = Arrangement(plan, self.conductor.live, self._guess_tokens)
        evict(self, plan, arrangement, self.conductor.live)
        self._arrangement = arrangement
        self._tell_caps(arrangement.caps)
        try:
            with (
                arranged(self, arrangement),
                self._adapters.fit(self, lambda request: self._may_run(request, arrangement)),
            ):
                output = super().schedule(throttle_prefills)
        finally:
            self._arrangement = None
            self._tell_caps(None)
        self.conductor.scheduled(output, plan, arrangement)
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        if scheduler_output.num_scheduled_tokens:
            self.conductor.landed(scheduler_output, outputs)
        return outputs

    def shutdown(self) -> None:
        self._client.close()
        if self._starter is not None:
            self._starter.stop()
        super().shutdown()

    # -- What vLLM asks itself within a step

    def _reserve_prefill_lookahead(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int
    ) -> int:
        """vLLM asks this of every request that it is about to schedule: no more than the plan gives it."""
        allowed = num_new_tokens
        if self._looks_ahead:
            allowed = super()._reserve_prefill_lookahead(request, num_computed_tokens, num_new_tokens)
        if self._arrangement is None:
            return allowed
        cap = self._arrangement.caps.get(request.request_id)
        if cap is None:
            return allowed if request.request_id in self._unplanned else 0
        if num_computed_tokens + num_new_tokens > request.num_tokens and request.num_computed_tokens == 0:
            # A decode that begins is padded with drafts, all or none: cutting them off breaks what vLLM asserts of it.
            self._arrangement.padded.add(request.request_id)
            return allowed
        return min(allowed, cap)

    def _try_schedule_encoder_inputs(
        self,
        request: Request,
        num_computed_tokens: int,
        num_new_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Which pictures are encoded for a piece of a prompt. vLLM asks before it asks how long the piece may be, and would
        encode what the plan does not reach."""
        ask, arrangement = super()._try_schedule_encoder_inputs, self._arrangement
        if arrangement is None or request.request_id in self._unplanned:
            return ask(request, num_computed_tokens, num_new_tokens, *args, **kwargs)
        name = request.request_id
        planned = wanted = min(num_new_tokens, arrangement.caps.get(name, 0))
        if planned > 0 and not self._cuts_pictures:
            wanted = min(num_new_tokens, to_picture_end(request, num_computed_tokens, planned))
        answer = ask(request, num_computed_tokens, wanted, *args, **kwargs)
        # Less where the encoder has no room for the next one, or it would be cut.
        arrangement.ends_at(name, answer[1], planned)
        return answer

    def _mamba_block_aligned_split(
        self, request: Request, num_new_tokens: int, *args: Any, **kwargs: Any
    ) -> int:
        """Where a piece of a prompt ends for state-space layers. vLLM asks before it asks how long the piece may be."""
        split, arrangement = super()._mamba_block_aligned_split, self._arrangement
        if arrangement is None or request.request_id in self._unplanned:
            return int(split(request, num_new_tokens, *args, **kwargs))
        block = self.cache_config.block_size
        return aligned(
            arrangement,
            request,
            num_new_tokens,
            block,
            lambda tokens: int(split(request, tokens, *args, **kwargs)),
        )

    def _get_local_prefix_cache_hit(self, request: Request, *args: Any) -> Any:
        """What vLLM finds in its cache, no more than the plan counts on: it would compute other tokens than those planned."""
        hit = super()._get_local_prefix_cache_hit(request, *args)
        if self._arrangement is None:
            return hit
        position = self._arrangement.positions.get(request.request_id)
        blocks, found, *rest = hit
        if position is None:
            return hit
        if found > position:
            blocks, found = prefix_of(self, request, position)
        if found < position:
            self._arrangement.short.add(request.request_id)
        blocks = in_use(self, blocks)
        if found < position:
            # The room of the plan holds less of it: what is left of it runs, rather than nothing.
            self._arrangement.cut(request.request_id, room_behind(self, blocks) - found)
        if is_of_this_step(self, blocks):
            self._arrangement.held.add(request.request_id)
        return (blocks, found, *rest)

    def _preempt_request(self, request: Request, timestamp: float, *args: Any, **kwargs: Any) -> None:
        if not self._preempts_as_planned:
            self.conductor.lost(request)
        known = self.conductor.live.by_name(request.request_id)
        if known is not None:
            self.conductor.live.evicted(known)
        super()._preempt_request(request, timestamp, *args, **kwargs)

    # -- For what arranges

    def preempt_as_planned(self, request: Request, timestamp: float) -> None:
        """Drops the KV of a request that was taken out of `running`; it may begin again in this very step."""
        self._preempts_as_planned = True
        try:
            self._preempt_request(request, timestamp)
        finally:
            self._preempts_as_planned = False
        self.prev_step_scheduled_req_ids.discard(request.request_id)

    def cached_tokens(self, request: Request) -> int:
        """How far vLLM's cache has its beginning, whichever request computed that."""
        return int(self._get_local_prefix_cache_hit(request)[1])

    def has_vllms_own(self) -> bool:
        """There may be requests for which `is_vllms_own`."""
        return self.conductor.live.waiting_for_grammar > 0 or bool(self._unplanned)

    def is_vllms_own(self, request: Request) -> bool:
        """It waits for something of vLLM's own, or no plan knows of it: vLLM does with it what it always does."""
        return self._is_blocked_waiting_status(request.status) or request.request_id in self._unplanned

    def _may_run(self, request: Request, arrangement: Arrangement) -> bool:
        return request.request_id in arrangement.caps or request.request_id in self._unplanned

    @contextmanager
    def _vllm_admits(self) -> Iterator[None]:
        """Within, vLLM holds back requests until their whole prompts fit, and keeps room free for others, as it is set to. In
        planned steps that is the planner's business."""
        kv = self.kv_cache_manager
        self.scheduler_reserve_full_isl, kv.watermark_blocks = self._admission
        try:
            yield
        finally:
            self.scheduler_reserve_full_isl, kv.watermark_blocks = False, 0

    def _restore_order(self) -> None:
        """vLLM's own order of running requests: first come, first kept."""
        if self.is_reordered:
            self.running.sort(key=lambda request: request.arrival_time)
            self.is_reordered = False


class SloScheduler(PlannedScheduler, Scheduler):
    """For vLLM's synchronous scheduling."""


class SloAsyncScheduler(PlannedScheduler, AsyncScheduler):
    """For vLLM's asynchronous scheduling."""


class Chosen:
    """The one of the two that fits vLLM's settings: what --scheduler-cls names."""

    def __new__(cls, vllm_config: "VllmConfig", *args: Any, **kwargs: Any) -> Any:
        kind = SloAsyncScheduler if vllm_config.scheduler_config.async_scheduling else SloScheduler
        return kind(vllm_config, *args, **kwargs)
