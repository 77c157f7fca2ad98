"""vLLM's KV blocks as the planner counts them: how much room there is, and which copy of a shared block is taken."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vllm.v1.request import Request

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
