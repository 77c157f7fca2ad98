"""How much room there is, and which copy of a block is shared, on vLLM's real block pool."""

from pathlib import Path

import pytest
from vllm.v1.request import Request

from slos_serve_vllm.blocks import KvShape, free_tokens, in_use, kv_tokens, room_behind
from slos_serve_vllm.scheduler import PlannedScheduler

from .fake_engine import BLOCK_TOKENS, RequestMaker, engine_config, make_scheduler

ALONE = {"start": False, "start_seconds": 0.01}
PROMPT = list(range(3, 3 + 4 * BLOCK_TOKENS + 1))


@pytest.fixture
def scheduler(folder: Path) -> PlannedScheduler:
    return make_scheduler(engine_config(folder, False, 0, 1), 33, ALONE)


def hold(scheduler: PlannedScheduler, name: str) -> Request:
    """A request that has computed the prompt on its own."""
    request = RequestMaker(scheduler.vllm_config)(name, PROMPT, 8)
    assert scheduler.kv_cache_manager.allocate_slots(request, len(PROMPT)) is not None
    return request


def test_a_copy_that_a_request_holds_is_shared_where_there_is_one(scheduler: PlannedScheduler) -> None:
    kv = scheduler.kv_cache_manager
    first, second = hold(scheduler, "first"), hold(scheduler, "second")
    third = RequestMaker(scheduler.vllm_config)("third", PROMPT, 8)
    kv.free(first)
    found, tokens, _ = kv.get_computed_blocks(third)
    assert tokens == 4 * BLOCK_TOKENS
    # vLLM would take room for what is there already.
    assert [block.ref_cnt for block in found.blocks[0]] == [0] * 4
    shared = in_use(scheduler, found)
    assert [block.ref_cnt for block in shared.blocks[0]] == [1] * 4
    assert [block.block_hash for block in shared.blocks[0]] == [block.block_hash for block in found.blocks[0]]
    before = free_tokens(scheduler)
    assert kv.allocate_slots(third, 1, tokens, shared) is not None
    assert free_tokens(scheduler) == before - BLOCK_TOKENS
    kv.free(second)
    kv.free(third)
    kept, _, _ = kv.get_computed_blocks(third)
    assert in_use(scheduler, kept).get_block_ids() == kept.get_block_ids()


def test_what_is_free_is_counted_as_all_of_it_is(scheduler: PlannedScheduler) -> None:
    assert free_tokens(scheduler) == kv_tokens(scheduler) == 32 * BLOCK_TOKENS
    request = hold(scheduler, "one")
    assert free_tokens(scheduler) == 27 * BLOCK_TOKENS
    scheduler.kv_cache_manager.free(request)
    # Each request that may run looks ahead by a block; those that run have theirs.
    scheduler.num_lookahead_tokens = 1
    scheduler.max_num_running_reqs = 3
    assert free_tokens(scheduler) == kv_tokens(scheduler) == 29 * BLOCK_TOKENS
    scheduler.running.append(request)
    assert free_tokens(scheduler) == 30 * BLOCK_TOKENS


def test_a_state_of_its_own_takes_one_block_of_a_request_however_long_it_is(folder: Path) -> None:
    config = engine_config(folder, False, 0, 1, prefixes=False)
    scheduler = make_scheduler(
        config, 101, ALONE, layers=("full", "states of their own", "states of their own")
    )
    # Two for each of the sixteen requests that may run.
    assert scheduler.kv_shape == KvShape(BLOCK_TOKENS, 1, 2)
    assert free_tokens(scheduler) == kv_tokens(scheduler) == (100 - 2 * 16) * BLOCK_TOKENS
    request = RequestMaker(config)("one", PROMPT, 8)
    assert scheduler.kv_cache_manager.allocate_slots(request, len(PROMPT)) is not None
    scheduler.running.append(request)
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 100 - 5 - 2
    assert free_tokens(scheduler) == (100 - 2 * 16 - 5) * BLOCK_TOKENS


def test_states_of_their_own_are_no_seats_where_these_would_leave_less(folder: Path) -> None:
    config = engine_config(folder, False, 0, 1, prefixes=False)
    scheduler = make_scheduler(
        config, 41, ALONE, layers=("full", "states of their own", "states of their own")
    )
    assert scheduler.kv_shape == KvShape(BLOCK_TOKENS, 3, 0)
    assert free_tokens(scheduler) == kv_tokens(scheduler) == 40 // 3 * BLOCK_TOKENS


def test_models_of_states_alone_are_counted_in_requests(folder: Path) -> None:
    config = engine_config(folder, False, 0, 1, prefixes=False)
    scheduler = make_scheduler(config, 41, ALONE, layers=("states of their own",))
    assert scheduler.kv_shape == KvShape(scheduler.max_model_len, 1, 0)
    assert kv_tokens(scheduler) == 40 * scheduler.max_model_len


def test_room_behind_a_prefix_is_what_it_has_and_all_that_is_free(scheduler: PlannedScheduler) -> None:
    kv = scheduler.kv_cache_manager
    third = RequestMaker(scheduler.vllm_config)("third", PROMPT, 8)
    first, _ = hold(scheduler, "first"), hold(scheduler, "second")
    found, _, _ = kv.get_computed_blocks(third)
    # Blocks that others hold are had besides the 22 that are free; those that are only kept are among these.
    assert room_behind(scheduler, found) == (22 + 4) * BLOCK_TOKENS
    kv.free(first)
    kept, _, _ = kv.get_computed_blocks(third)
    assert [block.ref_cnt for block in kept.blocks[0]] == [0] * 4
    assert room_behind(scheduler, kept) == 27 * BLOCK_TOKENS
    most = room_behind(scheduler, kept) - 4 * BLOCK_TOKENS
    assert kv.allocate_slots(third, most + 1, 4 * BLOCK_TOKENS, kept) is None
    assert kv.allocate_slots(third, most, 4 * BLOCK_TOKENS, kept) is not None
