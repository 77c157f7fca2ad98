"""Requests that arrive while a step is computed: the plan of the next step does not know of them, and may be worth another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slos_serve_vllm.patience import Patience

from .fake_engine import CLOCK, FakeEngine, RequestMaker, engine_config, make_scheduler
from .fake_planner import FakePlanner, Obliging, told_numbers
from .waits import LONG_S, wait_until

LONG_US, SHORT_US = 3_600e6, 1.0
Answers = Callable[[Obliging, Any], bool]


class Bench:
    """An engine whose first request is being computed, and the plan of its next step is made."""

    def __init__(self, folder: Path, planner: Obliging, is_async: bool = False, **settings: Any) -> None:
        self.planner = planner
        self.process = FakePlanner(folder / "p.sock", planner)
        in_air = 2 if is_async else 1
        config = engine_config(folder, is_async, 0, in_air)
        patient = {"deadline_ms": LONG_S * 1e3, "start_seconds": LONG_S, "hang_seconds": LONG_S}
        settings = {"socket": str(folder / "p.sock"), "start": False, **patient, **settings}
        self.engine = FakeEngine(make_scheduler(config, 400, settings), in_air, seed=1)
        self.make = RequestMaker(config)
        self.add("first", 20)
        for _ in range(3):
            self.engine.step()
        self.counters = self.engine.scheduler.conductor.counters

    def add(self, name: str, most: int) -> None:
        self.engine.add(self.make(name, [5] * 40, most))

    def heard(self) -> int:
        """How many messages the planner has heard, once it has heard all."""
        told, heard = self.engine.scheduler.conductor._seq, self.planner.heard
        wait_until(lambda: bool(heard) and heard[-1]["seq"] == told)
        return len(heard)

    def when_ran(self, name: str) -> int:
        return next(at for at, ran in enumerate(self.engine.ran) if name in ran)

    def close(self) -> None:
        self.engine.scheduler.shutdown()
        self.process.close()


@pytest.fixture
def bench(folder: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*args: Any, **more: Any) -> Bench:
        made.append(Bench(folder, Obliging(*args), **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("predicted_us", "steps_later"), [(LONG_US, 0), (SHORT_US, 1)])
def test_what_arrives_is_in_the_next_step_where_that_is_long(
    bench: Callable[..., Bench], is_async: bool, predicted_us: float, steps_later: int
) -> None:
    here = bench(predicted_us, is_async=is_async)
    before = len(here.engine.ran)
    here.add("second", 5)
    here.engine.run_until_idle()
    assert here.when_ran("second") == before + steps_later
    assert here.counters.renewed_plans == (1 if steps_later == 0 else 0)
    assert (here.counters.own_steps, here.counters.mismatches, here.counters.late_renewals) == (0, 0, 0)


def test_the_planner_is_told_which_plans_are_renewed_once_an_answer_was_waited_for(
    bench: Callable[..., Bench],
) -> None:
    here = bench(LONG_US)
    here.heard()
    asked, *later = here.planner.heard
    assert "renewsFromUs" not in asked
    assert later
    assert all(message["renewsFromUs"] > 0 and message["renewsFromUs"] % 100 == 0 for message in later)


def test_no_other_news_is_worth_another_plan(bench: Callable[..., Bench]) -> None:
    here = bench(LONG_US)
    here.add("second", 20)
    here.engine.step()
    heard = here.heard()
    here.engine.abort("second")
    here.engine.step()
    # Of the abort the planner hears with the step.
    here.heard()
    assert [message["ran"] is not None for message in here.planner.heard[heard:]] == [True]
    assert here.counters.renewed_plans == 1


def is_no_question(planner: Obliging, message: Any) -> bool:
    """But for the very first one."""
    return message["ran"] is not None or message["seq"] == 1


def be_impatient_of_answers(here: Bench) -> None:
    """Of plans that are asked for in the place of others. Those of steps are waited for on the busiest machine."""
    conductor = here.engine.scheduler.conductor
    patient, answer = conductor.patience.limit_s, conductor._answer

    def answer_soon() -> Any:
        conductor.patience.limit_s = lambda least_s: 0.02  # type: ignore[method-assign]
        try:
            return answer()
        finally:
            conductor.patience.limit_s = patient  # type: ignore[method-assign]

    conductor._answer = answer_soon  # type: ignore[method-assign]


def test_where_the_other_plan_is_late_the_old_one_runs(bench: Callable[..., Bench]) -> None:
    here = bench(LONG_US, is_no_question)
    be_impatient_of_answers(here)
    before, heard = len(here.engine.ran), here.heard()
    here.add("second", 5)
    here.engine.step()
    assert set(here.engine.ran[before]) == {"first"}
    assert (here.counters.late_renewals, here.counters.renewed_plans, here.counters.late_plans) == (1, 0, 0)
    assert here.heard() == heard + 2
    question, told = here.planner.heard[heard:]
    assert question["ran"] is None
    assert [one["id"] for one in question["arrived"]] == [2]
    # The planner counts on the old one no more: it is told as a step of the engine's own.
    assert (told["ran"]["batch"], told["ran"]["exact"], told_numbers(told["ran"]["ids"])) == (0, False, [1])
    here.engine.run_until_idle()
    assert here.when_ran("second") == before + 1
    assert (here.counters.own_steps, here.counters.mismatches) == (0, 0)


def test_the_planner_hears_at_once_that_the_last_request_has_ended(bench: Callable[..., Bench]) -> None:
    here = bench(SHORT_US)
    while "first" not in here.engine.ended:
        here.engine.step()
    scheduler = here.engine.scheduler
    # vLLM may not schedule again before the next request arrives.
    assert not scheduler.has_unfinished_requests()
    wait_until(lambda: here.planner.heard[-1]["ran"] is None)
    (landed,) = here.planner.heard[-1]["landed"]
    assert told_numbers(landed["stopped"]) == [1]


def durations(here: Bench) -> list[int]:
    return [one["durationUs"] for message in here.planner.heard for one in message["landed"]]


def test_what_is_between_two_steps_is_a_part_of_the_second(bench: Callable[..., Bench]) -> None:
    here = bench(SHORT_US)
    CLOCK.now_us += 700
    here.engine.step()
    here.engine.run_until_idle()
    wait_until(lambda: len(durations(here)) == 20)
    assert durations(here)[:5] == [3_800, 3_020, 3_020, 3_720, 3_020]


def test_a_pause_is_no_part_of_a_step(bench: Callable[..., Bench]) -> None:
    here = bench(SHORT_US)
    CLOCK.now_us += 600_000
    here.engine.run_until_idle()
    wait_until(lambda: len(durations(here)) == 20)
    assert max(durations(here)) == 3_800


def test_idle_time_is_no_part_of_a_step(bench: Callable[..., Bench]) -> None:
    here = bench(SHORT_US)
    here.engine.run_until_idle()
    CLOCK.now_us += 9_000_000
    here.add("late", 2)
    here.engine.run_until_idle()
    wait_until(lambda: len(durations(here)) == 22)
    assert durations(here)[-2:] == [3_800, 3_020]


def test_the_planner_of_a_busy_engine_is_waited_for(bench: Callable[..., Bench]) -> None:
    here = bench(SHORT_US, deadline_ms=None)
    patience = here.engine.scheduler.conductor.patience
    assert isinstance(patience, Patience)
    CLOCK.now_us += 80_000
    here.engine.step()
    # It waits 5 ms for its plans so far, which a busy machine may take: not the matter here.
    patience.plan_was_there()
    assert patience.limit_s(0.005) == pytest.approx(0.5 * (0.0031 + 0.2 * 0.08), abs=0.001)
