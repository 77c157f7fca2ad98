"""Where a piece of a prompt may end: not amid a picture for models whose tokens there see those behind them, and only at the end
of a KV block where a state-space layer keeps its state as a prefix that others share. vLLM asks that of itself before it asks how
long a piece may be: what it then cut shorter would be encoded in vain, or be kept as another prefix's state."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from vllm.v1.request import Request

from .arrange import Arrangement

if TYPE_CHECKING:
    from .scheduler import PlannedScheduler


def cuts_pictures(scheduler: "PlannedScheduler") -> bool:
    """Pieces may end amid a picture."""
    return not scheduler.scheduler_config.disable_chunked_mm_input


def keeps_states(scheduler: "PlannedScheduler") -> bool:
    """Pieces end where state-space layers keep their states."""
    return bool(scheduler.need_mamba_block_aligned_split)


def to_picture_end(request: Request, start: int, tokens: int) -> int:
    """So many tokens from `start` on, and more where they end amid a picture that they begin in: to its end. (Before one that
    they only reach vLLM itself ends them.)"""
    end = start + tokens
    for feature in request.mm_features or ():
        position = feature.mm_position
        if position.offset <= start < position.offset + position.length:
            return max(end, position.offset + position.length) - start
    return tokens


def aligned(
    arrangement: Arrangement, request: Request, offered: int, block: int, split: Callable[[int], int]
) -> int:
    """How many of the `offered` tokens make the piece: as planned, or less as `split` has it (vLLM's), or one KV block where that
    is nothing."""
    name = request.request_id
    planned = min(offered, arrangement.caps.get(name, 0))
    if planned == 0:
        return 0
    tokens = split(planned)
    if tokens == 0:
        tokens = split(min(offered, block))
    arrangement.ends_at(name, tokens, planned)
    return tokens
