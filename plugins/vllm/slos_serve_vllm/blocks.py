"""vLLM's KV blocks as the planner counts them: how much room there is, and which copy of a shared block is taken."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm.v1.request import Request

if TYPE_CHECKING:
    from .scheduler import PlannedScheduler


class KvShape(NamedTuple):
    """How what a plan takes is counted in vLLM's blocks, which all groups of layers share."""

    block_tokens: int
    """Of a block as plans count it."""
    blocks: int
    """Of vLLM's that one is: each group that keeps more for longer requests has its own."""
    besides: int
    """Of vLLM's that each request takes besides, however long it is: for states."""


def kv_shape(scheduler: "PlannedScheduler") -> KvShape:
    """Windows are counted as if they kept everything. A block that is for a whole request (a state that no other is to begin
    with) is one of each that may run; where that leaves less, it is counted as one more of each block that a plan takes."""
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    whole = [one for one in managers if one.block_size >= scheduler.max_model_len]
    besides = sum(1 + getattr(one, "num_speculative_blocks", 0) for one in whole)
    growing = [one.block_size for one in managers if one not in whole]
    if not growing:
        return KvShape(scheduler.block_size, besides, 0)
    block = math.lcm(*growing)
    blocks = sum(block // size for size in growing)
    seats = KvShape(block, blocks, besides)
    parts = KvShape(block, blocks + besides, 0)
    total, most = _all_blocks(scheduler), scheduler.max_num_running_reqs
    return max(seats, parts, key=lambda shape: _planned_tokens(scheduler, shape, total, most))


def kv_tokens(scheduler: "PlannedScheduler") -> int:
    """Room for KV; drafts and a drafter's look ahead take room that no plan counts."""
    shape = scheduler.kv_shape
    room = _planned_tokens(scheduler, shape, _all_blocks(scheduler), scheduler.max_num_running_reqs)
    return max(shape.block_tokens, room)


def free_tokens(scheduler: "PlannedScheduler") -> int:
    """Of `kv_tokens`, what no running request holds: what is kept as cache is free."""
    blocks = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    # Those that run have their look ahead, and their states, already.
    others = max(0, scheduler.max_num_running_reqs - len(scheduler.running))
    return max(0, _planned_tokens(scheduler, scheduler.kv_shape, blocks, others))


def _all_blocks(scheduler: "PlannedScheduler") -> int:
    """But for vLLM's null block."""
    return int(scheduler.kv_cache_config.num_blocks) - 1


def _planned_tokens(scheduler: "PlannedScheduler", shape: KvShape, blocks: int, to_run: int) -> int:
    """That find room in so many of vLLM's blocks, if so many requests more come to run."""
    block = shape.block_tokens
    ahead = -(-scheduler.num_lookahead_tokens // block) * block
    return int((blocks - shape.besides * to_run) // shape.blocks * block - ahead * to_run)


def room_behind(scheduler: "PlannedScheduler", blocks: Any) -> int:
    """Tokens that find room in these blocks of a prefix and in all that is free behind them."""
    held = sum(block.ref_cnt > 0 for group in blocks.blocks for block in group)
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    return _planned_tokens(scheduler, scheduler.kv_shape, held + free, 1)


def prefix_of(scheduler: "PlannedScheduler", request: Request, most: int) -> tuple[Any, int]:
    """What the cache has of its beginning, no more than so many tokens: blocks, and tokens in them. What is found without that
    bound cannot be cut to it: of a window or a state there is only what goes on from its own end."""
    kv = scheduler.kv_cache_manager
    blocks, found, *_ = kv.coordinator.find_longest_cache_hit(request.block_hashes, most)
    return kv.create_kv_cache_blocks(blocks), int(found)


def is_of_this_step(scheduler: "PlannedScheduler", blocks: Any) -> bool:
    """It ends with a state that is computed in this very step: vLLM lets no other request begin from there before the next."""
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    for group, manager in zip(blocks.blocks, managers, strict=True):
        made = getattr(manager, "cached_blocks_this_step", ())
        if made and group and group[-1].block_hash in made:
            return True
    return False


def in_use(scheduler: "PlannedScheduler", blocks: Any) -> Any:
    """The same blocks of a prefix, but those that requests hold, where there are such copies.

    Requests that compute the same prefix at the same time have it twice, and vLLM shares whichever copy it had first: also one
    that is only kept as cache, and takes room when it is shared. The planner counts what requests hold as taken already.
    """
    cached = getattr(scheduler.kv_cache_manager.block_pool.cached_block_hash_to_block, "_cache", None)
    if not isinstance(cached, Mapping) or all(_all_held(group) for group in blocks.blocks):
        return blocks
    groups = tuple([_held_copy(cached, block) for block in group] for group in blocks.blocks)
    return scheduler.kv_cache_manager.create_kv_cache_blocks(groups)


def _all_held(group: Sequence[Any]) -> bool:
    return all(block.ref_cnt > 0 for block in group)


def _held_copy(cached: Mapping[Any, Any], block: Any) -> Any:
    if block.ref_cnt > 0 or block.block_hash is None:
        return block
    copies = cached.get(block.block_hash)
    if not isinstance(copies, Mapping):
        return block
    return next((copy for copy in copies.values() if copy.ref_cnt > 0), block)
