"""Adapters (LoRA) in one step: vLLM loads at most `max_loras` different ones for it, and ends with an error where running
requests have more."""

from vllm.v1.request import Request


class AdapterPlaces:
    """Which adapters the step that is scheduled now may have. First come, first served."""

    def __init__(self, most: int | None) -> None:
        """None: the engine knows no adapters."""
        self._most = most
        self._taken: set[int] = set()

    def clear(self) -> None:
        """For the next step."""
        self._taken.clear()

    def take(self, request: Request) -> bool:
        """The adapter of a request that is about to run finds a place."""
        adapter = adapter_of(request)
        if self._most is None or adapter == 0 or adapter in self._taken:
            return True
        if len(self._taken) >= self._most:
            return False
        self._taken.add(adapter)
        return True


def adapter_of(request: Request) -> int:
    """vLLM's number of its adapter; 0: none."""
    return 0 if request.lora_request is None else int(request.lora_request.lora_int_id)
