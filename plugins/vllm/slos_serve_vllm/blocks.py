"""vLLM's KV blocks as the planner counts them: how much room there is, and which copy of a shared block is taken."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scheduler import PlannedScheduler


def kv_tokens(scheduler: "PlannedScheduler") -> int:
    """Room for KV. One block is vLLM's null block; groups of layers share the blocks; drafts and a drafter's look ahead take
    room that no plan counts."""
    blocks = scheduler.kv_cache_config.num_blocks - 1
    return max(scheduler.block_size, _planned_tokens(scheduler, blocks, scheduler.max_num_running_reqs))


def free_tokens(scheduler: "PlannedScheduler") -> int:
    """Of `kv_tokens`, what no running request holds: what is kept as cache is free."""
    blocks = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    # Those that run have their look ahead already.
    others = max(0, scheduler.max_num_running_reqs - len(scheduler.running))
    return max(0, _planned_tokens(scheduler, blocks, others))


def _planned_tokens(scheduler: "PlannedScheduler", blocks: int, looking_ahead: int) -> int:
    groups = max(1, len(scheduler.kv_cache_config.kv_cache_groups))
    ahead = -(-scheduler.num_lookahead_tokens // scheduler.block_size) * scheduler.block_size
    return int(blocks // groups * scheduler.block_size - ahead * looking_ahead)


def room_behind(scheduler: "PlannedScheduler", blocks: Any) -> int:
    """Tokens that find room in these blocks of a prefix and in all that is free behind them."""
    held = sum(block.ref_cnt > 0 for group in blocks.blocks for block in group)
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    return _planned_tokens(scheduler, held + free, 1)


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
