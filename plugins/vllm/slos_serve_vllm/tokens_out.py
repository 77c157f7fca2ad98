"""What has come out of requests: when, for planners that connect later, and the KV blocks that it has filled.

As a rule a token comes out of each of the same requests as in the step before. To look each of them up, in memory that is cold by
then, takes longer than all else that is done for a step that has landed: only those are looked at of which there may be news."""

from collections.abc import Iterable, Sequence

from .requests import Live, LiveRequests


class TokensOut:
    """Of one engine's requests. For each step that lands: `came_of_all` or `came`, and then `filled`."""

    def __init__(self, live: LiveRequests, most_tokens: int, hash_tokens: int) -> None:
        """`most_tokens`: that a step yields of a request. `hash_tokens`: that one of vLLM's hashes stands for."""
        self._live = live
        self._most_tokens = most_tokens
        self._hash_tokens = hash_tokens
        self._last: Sequence[Live] = ()
        """Those of which a token came out at `_last_us`: they are told so only when it is asked for, or others come."""
        self._last_us = 0
        self._steps = 0
        """So many have landed."""
        self._due: dict[int, list[Live]] = {}
        """Those that may have filled a block, by the step that may be the one."""

    def came_of_all(self, lives: Sequence[Live], names: dict[str, int], now_us: int) -> None:
        """A token came out of each, in the one list for as long as they are the same. `names`: theirs."""
        if lives is not self._last:
            self.settle()
            self._last = lives
        self._last_us = now_us
        silent = self._live.silent
        if silent:
            for name in silent.keys() & names.keys():
                self._begins(silent[name], 1, now_us)

    def came(self, lives: Iterable[Live], counts: Iterable[int], now_us: int) -> None:
        """So many tokens came out of each."""
        self.settle()
        for known, count in zip(lives, counts, strict=True):
            if count > 0:
                known.last_us = now_us
                if known.first_tokens == 0:
                    self._begins(known, count, now_us)

    def settle(self) -> None:
        """Each knows when its last token came out."""
        for known in self._last:
            known.last_us = self._last_us
        self._last = ()

    def all_have_ended(self) -> None:
        """It may be long until others come: nothing of these is kept until then, pictures least of all."""
        self.settle()
        self._due.clear()

    def _begins(self, known: Live, count: int, now_us: int) -> None:
        known.first_us, known.first_tokens = now_us, count
        self._live.silent.pop(known.name, None)
        if self._live.shares_prefixes:
            self._due.setdefault(self._steps, []).append(known)

    def filled(self) -> list[tuple[int, int]]:
        """Of the KV blocks that were filled with this step: the request's number, and the block's hash."""
        filled: list[tuple[int, int]] = []
        looked_at = self._due.pop(self._steps, ())
        self._steps += 1
        for known in looked_at:
            if self._live.by_number(known.number) is None:
                continue
            if len(known.hashes) >= known.due_hashes:
                filled += [(known.number, number) for number in self._live.new_hashes(known)]
            missing = known.due_hashes * self._hash_tokens - known.request.num_tokens
            # It fills the next one in so many steps at the earliest.
            steps = max(1, -(-missing // self._most_tokens))
            self._due.setdefault(self._steps - 1 + steps, []).append(known)
        return filled
