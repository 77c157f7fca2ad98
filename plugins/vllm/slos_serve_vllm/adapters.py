"""Adapters (LoRA) in one step: vLLM loads at most `max_loras` different ones for it, and ends with an error where running
requests have more: 0.32 counts those that are in the step, 0.33 all."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from vllm.v1.request import Request

if TYPE_CHECKING:
    from .scheduler import PlannedScheduler


class AdapterPlaces:
    """Planned steps take turns with adapters, so that more of them run than vLLM's own scheduling ever lets begin."""

    def __init__(self, most: int | None) -> None:
        """None: the engine knows no adapters."""
        self._most = most

    def fit(
        self, scheduler: "PlannedScheduler", may_run: Callable[[Request], bool]
    ) -> AbstractContextManager[None]:
        """Within, vLLM sees running requests of no more adapters than fit a step: the first of those that may run."""
        return nullcontext() if self._most is None else self._fit(scheduler, may_run, self._most)

    @contextmanager
    def _fit(
        self, scheduler: "PlannedScheduler", may_run: Callable[[Request], bool], most: int
    ) -> Iterator[None]:
        taken: set[int] = set()
        seen: list[Request] = []
        hidden: list[Request] = []
        for request in scheduler.running:
            adapter = adapter_of(request)
            is_in = adapter in taken or len(taken) < most
            if adapter > 0 and not (is_in and may_run(request)):
                hidden.append(request)
                continue
            seen.append(request)
            if adapter > 0:
                taken.add(adapter)
        if not hidden:
            yield
            return
        scheduler.running = seen
        scheduler.is_reordered = True
        # They keep their seats.
        scheduler.max_num_active_reqs -= len(hidden)
        try:
            yield
        finally:
            scheduler.max_num_active_reqs += len(hidden)
            scheduler.running += hidden


def adapter_of(request: Request) -> int:
    """vLLM's number of its adapter; 0: none."""
    return 0 if request.lora_request is None else int(request.lora_request.lora_int_id)
