"""What came out of requests, told from as few looks as possible: the same as by a look at each of them after each step."""

import random
from pathlib import Path

import pytest

from .fake_engine import CLOCK, FakeEngine, RequestMaker, engine_config, make_scheduler

ALONE = {"start": False, "start_seconds": 0.01}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("is_async", [False, True])
def test_is_what_a_look_at_each_request_finds(folder: Path, is_async: bool, drafts: int, seed: int) -> None:
    chance = random.Random(seed)
    in_air = 2 if is_async else 1
    config = engine_config(folder, is_async, drafts, in_air, max_num_seqs=6)
    # Few blocks: some lose their KV and begin again.
    scheduler = make_scheduler(config, 14, ALONE)
    conductor = scheduler.conductor
    engine = FakeEngine(scheduler, in_air, seed, stop=0.02)
    make = RequestMaker(config)
    told: dict[int, int] = {}
    first_us: dict[str, int] = {}
    last_us: dict[str, int] = {}
    ask = conductor._tokens_out.filled

    def filled() -> list[tuple[int, int]]:
        blocks = ask()
        for number, _ in blocks:
            told[number] = told.get(number, 0) + 1
        return blocks

    conductor._tokens_out.filled = filled  # type: ignore[method-assign]
    checked = 0
    for step in range(300):
        if chance.random() < 0.3:
            engine.add(make(f"r{step}", [3 + step] * chance.randint(1, 40), chance.randint(1, 50)))
        if chance.random() < 0.03 and scheduler.requests:
            engine.abort(chance.choice(sorted(scheduler.requests)))
        before = {name: len(tokens) for name, tokens in engine.tokens.items()}
        engine.step()
        conductor.notice(scheduler.requests, len(scheduler.requests))
        for name, tokens in engine.tokens.items():
            if len(tokens) > before[name]:
                last_us[name] = CLOCK.now_us
                first_us.setdefault(name, CLOCK.now_us)
        if step % 7 == 0:
            conductor._tokens_out.settle()
        for known in conductor.live:
            if not engine.tokens[known.name]:
                assert known.first_tokens == 0
                continue
            assert known.first_us == first_us[known.name]
            # Its prompt's too, as no planner was told of these when it came.
            assert told.get(known.number, 0) == len(known.request.block_hashes)
            if step % 7 == 0:
                assert known.last_us == last_us[known.name]
                checked += 1
    assert checked > 50
    assert any(blocks > 3 for blocks in told.values())
