"""Log lines on steps that go without their plans: the first is told at once, the others in sums, however many there are."""

import logging
import time
from collections.abc import Callable

_EVERY_S = 10.0
_log = logging.getLogger("vllm.slos_serve")


class LateLog:
    """One engine's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_s: float | None = None
        """Since when steps are counted; None: none was late so far."""
        self._late = self._steps = 0

    def step(self, is_late: bool) -> None:
        """A step is scheduled: by its plan or, where that is late, by vLLM itself."""
        now_s = self._clock()
        if self._since_s is None:
            if is_late:
                _log.warning(
                    "slos-serve: the plan is late: vLLM schedules this step by itself; more such steps are counted and told "
                    "every %g s",
                    _EVERY_S,
                )
                self._since_s = now_s
            return
        self._late += is_late
        self._steps += 1
        if self._late and now_s - self._since_s >= _EVERY_S:
            _log.warning(
                "slos-serve: %d of the last %d steps were vLLM's own (%.0f s): their plans were late",
                self._late,
                self._steps,
                now_s - self._since_s,
            )
            self._since_s, self._late, self._steps = now_s, 0, 0
