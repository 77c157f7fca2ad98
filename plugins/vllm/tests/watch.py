"""What must hold of each step besides the plan: where pieces of prompts end, what is encoded for them, which KV they need."""

from collections.abc import Iterator

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import MambaSpec, SlidingWindowSpec
from vllm.v1.request import Request

from slos_serve_vllm.scheduler import PlannedScheduler

Piece = tuple[Request, int, int]
"""Of a request: tokens in place before, tokens in place after."""


def watch(scheduler: PlannedScheduler, output: SchedulerOutput) -> None:
    """Raises AssertionError for the first that does not hold."""
    for piece in _pieces(scheduler, output):
        _check_pictures(scheduler, output, piece)
        _check_kv(scheduler, piece)


def _pieces(scheduler: PlannedScheduler, output: SchedulerOutput) -> Iterator[Piece]:
    cached = output.scheduled_cached_reqs
    placed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    placed.update({new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs})
    for name, tokens in output.num_scheduled_tokens.items():
        yield scheduler.requests[name], placed[name], placed[name] + tokens


def _check_pictures(scheduler: PlannedScheduler, output: SchedulerOutput, piece: Piece) -> None:
    request, begin, end = piece
    for place in output.scheduled_encoder_inputs.get(request.request_id, []):
        assert request.mm_features[place].mm_position.offset < end, (
            "a picture is encoded that no piece reaches"
        )
    for feature in request.mm_features:
        first = feature.mm_position.offset
        last = first + feature.mm_position.length
        if begin < last and first < end and scheduler.scheduler_config.disable_chunked_mm_input:
            assert end >= last, f"a picture at [{first}, {last}) is cut by a piece [{begin}, {end})"


def _check_kv(scheduler: PlannedScheduler, piece: Piece) -> None:
    request, begin, end = piece
    held = scheduler.kv_cache_manager.get_blocks(request.request_id).blocks
    for group, blocks in zip(scheduler.kv_cache_config.kv_cache_groups, held, strict=True):
        spec = group.kv_cache_spec
        if isinstance(spec, MambaSpec):
            is_prompt = end < max(request.num_prompt_tokens, request.num_tokens - 1)
            assert not is_prompt or end % spec.block_size == 0, f"a piece ends at {end}, amid a state's block"
        is_hit = begin > 0 and begin % spec.block_size == 0
        if is_hit and isinstance(spec, (MambaSpec, SlidingWindowSpec)):
            window = 1 if isinstance(spec, MambaSpec) else spec.sliding_window - 1
            first = max(0, begin - window) // spec.block_size
            needed = blocks[first : begin // spec.block_size]
            assert not any(block.is_null for block in needed), f"what is before {begin} is not there"
