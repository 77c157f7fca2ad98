"""What the log says of late plans: the first, and sums, never a line for each."""

import logging
from collections.abc import Callable

import pytest

from slos_serve_vllm.late_log import LateLog


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "vllm.slos_serve")

    def taken() -> list[str]:
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return said

    return taken


def test_plans_in_time_are_not_told(lines: Callable[[], list[str]]) -> None:
    log = LateLog(Clock())
    for _ in range(1000):
        log.step(False)
    assert lines() == []


def test_the_first_is_told_at_once_and_the_rest_in_sums(lines: Callable[[], list[str]]) -> None:
    clock = Clock()
    log = LateLog(clock)
    log.step(False)
    log.step(True)
    assert len(lines()) == 1
    for number in range(79):
        clock.now_s += 0.125
        log.step(number % 2 == 0)
    assert lines() == []
    clock.now_s += 0.125
    log.step(False)
    (line,) = lines()
    assert "40 of the last 80 steps" in line
    assert "(10 s)" in line


def test_a_late_one_after_a_long_time_is_told_with_all_that_were_in_time(
    lines: Callable[[], list[str]],
) -> None:
    clock = Clock()
    log = LateLog(clock)
    log.step(True)
    lines()
    for _ in range(300):
        clock.now_s += 1
        log.step(False)
    assert lines() == []
    log.step(True)
    assert "1 of the last 301 steps" in lines()[0]
    log.step(True)
    assert lines() == []
