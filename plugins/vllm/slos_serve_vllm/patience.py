"""How long a step waits for its plan, and when a plan that is there is worth another: by what either costs against a step."""

_SHARE = 0.5
"""Of a usual step, that one may wait for its plan. A step without a plan has all running requests and prompts up to the budget in
it, whatever they need, and those of the next seconds bear it: half a step later costs them less."""
_MOST_S = 0.1
_LATE_IN_A_ROW = 3
"""After so many no step waits for its plan any more, until one is there in time."""
_STEP_WEIGHT = 0.2
_ANSWER_WEIGHT = 0.25
_ANSWERS_PER_STEP = 10
"""A plan that lasts so many answers may be worth one: what arrived meanwhile would be left out of it."""
_SHARE_ASKED = 0.01
_MOST_SAVED_S = 0.05
"""It is while asking takes no more than this share of the time that steps take, with so much saved up for bursts: where a request
comes and one goes in nearly every step, all would take longer."""
_FORGETTING = 0.99
"""One slow answer is no reason to ask never again: that one was is forgotten by so much a step."""


class Patience:
    """Learns how long steps and answers take. All times are seconds."""

    def __init__(self, fixed_s: float | None = None) -> None:
        """`fixed_s`: what a step may wait, where that is set."""
        self._fixed_s = fixed_s
        self._step_s = 0.0
        self._answer_s: float | None = None
        self._late_in_a_row = 0
        self._saved_s = _MOST_SAVED_S

    def limit_s(self, least_s: float) -> float:
        """How long the next step may wait for its plan; `least_s` where steps are short."""
        if self._late_in_a_row >= _LATE_IN_A_ROW:
            return 0.0
        if self._fixed_s is not None:
            return self._fixed_s
        return max(least_s, min(_MOST_S, _SHARE * self._step_s))

    def is_worth_another(self, planned_s: float) -> bool:
        """A plan of a step that should take so long does not know of what has arrived since: is it worth what the answer takes to
        ask for one that does? Not before an answer was seen."""
        if self._answer_s is None:
            return False
        answers = planned_s / self._answer_s if self._answer_s > 0 else float("inf")
        return answers >= _ANSWERS_PER_STEP and self._saved_s > 0

    @property
    def renews_from_s(self) -> float | None:
        """How long plans must last that may be worth another; None before an answer was seen."""
        return None if self._answer_s is None else _ANSWERS_PER_STEP * self._answer_s

    def step_took(self, seconds: float) -> None:
        """A step has landed."""
        self._saved_s = min(_MOST_SAVED_S, self._saved_s + _SHARE_ASKED * seconds)
        self._step_s += (_STEP_WEIGHT if self._step_s > 0 else 1.0) * (seconds - self._step_s)
        if self._answer_s is not None:
            self._answer_s *= _FORGETTING

    def answer_took(self, seconds: float) -> None:
        """A question was asked and waited for: so long, answered or not."""
        before = seconds if self._answer_s is None else self._answer_s
        self._answer_s = before + _ANSWER_WEIGHT * (seconds - before)

    def renewal_took(self, seconds: float) -> None:
        """Another plan was asked for in the place of one that was there. Being slow once is forgotten soon."""
        self._saved_s = max(-_MOST_SAVED_S, self._saved_s - seconds)

    def plan_was_late(self) -> None:
        """A step goes without its plan."""
        self._late_in_a_row += 1

    def plan_was_there(self) -> None:
        """In time: the next one is waited for again."""
        self._late_in_a_row = 0
