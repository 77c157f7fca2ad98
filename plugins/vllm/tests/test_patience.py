"""How long steps wait for plans, and when a plan is worth another: both sides of each bound."""

import pytest

from slos_serve_vllm.patience import Patience

LEAST_S = 0.005


def after(*steps_s: float) -> Patience:
    patience = Patience()
    for seconds in steps_s:
        patience.step_took(seconds)
    return patience


@pytest.mark.parametrize(
    ("step_s", "limit_s"),
    [(0.002, LEAST_S), (0.01, LEAST_S), (0.012, 0.006), (0.06, 0.03), (0.2, 0.1), (3.0, 0.1)],
)
def test_a_step_waits_by_how_long_steps_take(step_s: float, limit_s: float) -> None:
    assert after(step_s).limit_s(LEAST_S) == pytest.approx(limit_s)


def test_nothing_is_known_before_the_first_step() -> None:
    assert after().limit_s(LEAST_S) == LEAST_S


def test_one_long_step_is_not_what_steps_take() -> None:
    assert after(0.02, 0.02, 0.02, 0.2).limit_s(LEAST_S) < 0.03
    assert after(0.02, *[0.2] * 20).limit_s(LEAST_S) > 0.09


def test_what_is_set_holds_however_long_steps_take() -> None:
    patience = Patience(fixed_s=0.002)
    patience.step_took(1.0)
    assert patience.limit_s(LEAST_S) == 0.002


def test_after_three_late_plans_no_step_waits_until_one_is_in_time() -> None:
    patience = after(0.06)
    for _ in range(2):
        patience.plan_was_late()
    assert patience.limit_s(LEAST_S) > 0
    patience.plan_was_late()
    assert patience.limit_s(LEAST_S) == 0.0
    patience.plan_was_there()
    assert patience.limit_s(LEAST_S) == pytest.approx(0.03)


def test_only_a_plan_that_is_long_against_an_answer_is_worth_another() -> None:
    patience = after(0.06)
    assert not patience.is_worth_another(1000.0)
    assert patience.renews_from_s is None
    patience.answer_took(0.001)
    assert patience.renews_from_s == pytest.approx(0.01)
    assert not patience.is_worth_another(0.009)
    assert patience.is_worth_another(0.011)


def test_plans_are_only_while_asking_takes_little_of_the_time() -> None:
    patience = after(0.06)
    patience.answer_took(0.001)
    patience.renewal_took(0.03)
    assert patience.is_worth_another(0.011)
    patience.renewal_took(0.03)
    assert not patience.is_worth_another(0.011)
    assert not patience.is_worth_another(1.0)
    # A step of 60 ms pays for 0.6 ms: 10 are owed.
    for _ in range(16):
        patience.step_took(0.06)
    assert not patience.is_worth_another(0.02)
    patience.step_took(0.06)
    assert patience.is_worth_another(0.02)
    # No more is saved up than at first.
    for _ in range(100):
        patience.step_took(0.06)
    patience.renewal_took(0.06)
    patience.answer_took(0.001)
    assert not patience.is_worth_another(0.006)


def test_what_asking_once_took_is_paid_for_soon() -> None:
    patience = after(0.06)
    patience.answer_took(0.001)
    patience.renewal_took(9.0)
    assert not patience.is_worth_another(0.011)
    for _ in range(84):
        patience.step_took(0.06)
    assert patience.is_worth_another(0.02)


def test_a_slow_answer_counts_and_is_forgotten() -> None:
    patience = after(0.06)
    patience.answer_took(0.001)
    patience.answer_took(0.03)
    assert not patience.is_worth_another(0.06)
    for _ in range(400):
        patience.step_took(0.06)
    assert patience.is_worth_another(0.06)
    # Answers that go on being slow are not.
    for _ in range(20):
        patience.answer_took(0.03)
    assert not patience.is_worth_another(0.25)
