"""Where a request's thoughts end and its answer begins, by vLLM's own parser of thoughts (--reasoning-parser)."""

from collections.abc import Sequence
from typing import Any

from vllm.v1.request import Request


class Thoughts:
    """Reads tokens as they come out. Without a parser no request thinks."""

    def __init__(self, structured_output_manager: Any) -> None:
        kind = getattr(structured_output_manager, "reasoner_cls", None)
        self._parser = None if kind is None else kind(tokenizer=structured_output_manager.tokenizer)

    @property
    def are_told(self) -> bool:
        return self._parser is not None

    def begin(self, request: Request) -> bool:
        """It thinks first; a template may have ended its thoughts in the prompt already."""
        return self._parser is not None and not self._parser.is_reasoning_end(request.prompt_token_ids or [])

    def tokens_until_end(self, request: Request, new_tokens: Sequence[int]) -> int | None:
        """How many of the tokens that came out last are still thoughts, where the thoughts end with them; None: they go on."""
        assert self._parser is not None
        output = list(request.output_token_ids)
        before = len(output) - len(new_tokens)
        for count in range(1, len(new_tokens) + 1):
            if self._parser.is_reasoning_end_streaming(output[: before + count], new_tokens[:count]):
                return count
        return None
