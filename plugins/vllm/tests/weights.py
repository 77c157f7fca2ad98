"""Made-up weights (load_format="dummy") with which a token depends on all that is before it. With vLLM's own, of a thousandth, it
comes of the last token alone: whatever KV the others were in, the answer would be the same."""

from vllm.model_executor.model_loader.weight_utils import initialize_single_dummy_weight

TELLING = 0.3
SMALL = 0.001
IN_WORKERS = f"{__name__}.InWorkers"
"""vLLM's `worker_extension_cls`, where workers are processes of their own: they import this."""


class InWorkers:
    """Adds nothing."""


def make_up(largest: float) -> None:
    """From here on."""
    _, _, *others = _fill.__defaults__
    _fill.__defaults__ = (-largest, largest, *others)


_fill = initialize_single_dummy_weight.__wrapped__
make_up(TELLING)
