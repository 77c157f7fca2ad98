"""What a model file itself says of tokens, computed with numpy in double precision: without the server, without llama.cpp."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def halved(numbers: Array) -> Array:
    """As numbers of 16 bits: the engine keeps KV in these, and multiplies with what it makes of the other side."""
    return numbers.astype(np.float16).astype(np.float64)


class Reference:
    """A model of llama's architecture."""

    def __init__(self, path: str) -> None:
        reader = gguf.GGUFReader(path)
        self._tensors = {
            tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in reader.tensors
        }

        def setting(name: str) -> Any:
            return reader.fields[f"llama.{name}"].contents()

        self._known: dict[tuple[int, ...], Array] = {}
        self._layers = setting("block_count")
        self._heads = setting("attention.head_count")
        self._kv_heads = setting("attention.head_count_kv")
        self._epsilon = setting("attention.layer_norm_rms_epsilon")
        base = reader.fields.get("llama.rope.freq_base")
        self._rope_base = 10_000.0 if base is None else base.contents()

    def logprobs(self, tokens: list[int]) -> Array:
        """Row i: of what follows token i, each token of the vocabulary. Known ones are not computed again."""
        if tuple(tokens) not in self._known:
            self._known[tuple(tokens)] = self._compute(tokens)
        return self._known[tuple(tokens)]

    def _compute(self, tokens: list[int]) -> Array:
        hidden = self._tensors["token_embd.weight"][tokens]
        for layer in range(self._layers):
            hidden = hidden + self._attention(layer, hidden)
            hidden = hidden + self._feed_forward(layer, hidden)
        hidden = self._norm(hidden, "output_norm.weight")
        output = self._tensors.get("output.weight", self._tensors["token_embd.weight"])
        logits = hidden @ output.T
        top = logits.max(axis=-1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))

    def score(self, context: list[int], continuation: list[int]) -> tuple[float, bool, int]:
        """The log-likelihood of tokens after others, whether each of them is the likeliest, and how many they are."""
        whole = context + continuation
        rows = self.logprobs(whole)[len(context) - 1 : -1]
        own = rows[np.arange(len(continuation)), continuation]
        return float(own.sum()), bool((own == rows.max(axis=-1)).all()), len(continuation)

    def _of(self, layer: int, name: str) -> Array:
        return self._tensors[f"blk.{layer}.{name}.weight"]

    def _norm(self, hidden: Array, name: str) -> Array:
        size = np.sqrt((hidden**2).mean(axis=-1, keepdims=True) + self._epsilon)
        return hidden / size * self._tensors[name]

    def _attention(self, layer: int, hidden: Array) -> Array:
        normed = self._norm(hidden, f"blk.{layer}.attn_norm.weight")
        count = len(hidden)

        def heads(name: str, number: int) -> Array:
            return (normed @ self._of(layer, name).T).reshape(count, number, -1).transpose(1, 0, 2)

        queries = halved(self._rotate(heads("attn_q", self._heads)))
        keys = halved(self._rotate(heads("attn_k", self._kv_heads)))
        values = halved(heads("attn_v", self._kv_heads))
        shared = self._heads // self._kv_heads
        keys, values = keys.repeat(shared, axis=0), values.repeat(shared, axis=0)
        weights = queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[-1])
        weights = np.where(np.tril(np.ones((count, count), dtype=bool)), weights, -np.inf)
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
        weights = halved(weights / weights.sum(axis=-1, keepdims=True))
        return (weights @ values).transpose(1, 0, 2).reshape(count, -1) @ self._of(layer, "attn_output").T

    def _feed_forward(self, layer: int, hidden: Array) -> Array:
        normed = self._norm(hidden, f"blk.{layer}.ffn_norm.weight")
        gate = normed @ self._of(layer, "ffn_gate").T
        return (gate / (1 + np.exp(-gate)) * (normed @ self._of(layer, "ffn_up").T)) @ self._of(
            layer, "ffn_down"
        ).T

    def _rotate(self, heads: Array) -> Array:
        """Positions, as turns of neighbouring pairs."""
        width = heads.shape[-1]
        turns = self._rope_base ** (-np.arange(0, width, 2) / width)
        angles = np.arange(heads.shape[1])[:, None] * turns
        even, odd = heads[..., 0::2], heads[..., 1::2]
        rotated = np.empty_like(heads)
        rotated[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
        rotated[..., 1::2] = even * np.sin(angles) + odd * np.cos(angles)
        return rotated
