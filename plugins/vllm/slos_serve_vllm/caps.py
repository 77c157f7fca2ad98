"""How many tokens vLLM may give a request, where it drafts none. It asks of each request of each step: a function without
attributes to look up takes no longer than vLLM's own."""

from collections.abc import Callable

from vllm.v1.request import Request

Reserve = Callable[[Request, int, int], int]
"""vLLM's `_reserve_prefill_lookahead`: of a request, its computed tokens and those that it would get, how many it gets."""


def capped(unplanned: set[str]) -> tuple[Reserve, Callable[[dict[str, int] | None], None]]:
    """The function, and another that tells it the caps of a step by name, or None: no plan. What has no cap gets nothing, but for
    the `unplanned`."""
    cap_of: Callable[[str], int | None] | None = None

    def reserve(request: Request, _computed_tokens: int, new_tokens: int) -> int:
        if cap_of is None:
            return new_tokens
        cap = cap_of(request.request_id)
        if cap is None:
            return new_tokens if request.request_id in unplanned else 0
        return new_tokens if new_tokens < cap else cap

    def tell(caps: dict[str, int] | None) -> None:
        nonlocal cap_of
        cap_of = None if caps is None else caps.get

    return reserve, tell
