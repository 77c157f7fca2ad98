# /// script
# requires-python = ">=3.10"
# dependencies = ["gguf>=0.17", "numpy", "safetensors"]
# ///
"""Models for vLLM without a model hub, as folders that `vllm serve FOLDER` takes.

    uv run bench/vllm/make-model.py smollm2 FOLDER     # SmolLM2-135M-Instruct, out of its GGUF (float32, 540 MB)
    uv run bench/vllm/make-model.py tiny FOLDER        # no weights: serve it with --load-format dummy
    uv run bench/vllm/make-model.py llama8b FOLDER     # the same, with the shape of Llama 3.1 8B: for GPUs

The GGUF is what `slos-serve model fetch smollm2-135m` puts in the cache folder; --gguf names another file. Any Python that has gguf,
numpy and safetensors does in place of `uv run`; tiny needs none of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTROL = 3  # A token's type in a GGUF.

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SHAPES: dict[str, dict[str, Any]] = {
    # A vocabulary as large as SmolLM2's: a step on a CPU takes milliseconds.
    "tiny": {
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "vocab_size": 49152,
    },
    "llama8b": {
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_theta": 500000.0,
        "max_position_embeddings": 16384,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
}

# llama.cpp's names of tensors, and those of Hugging Face.
TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["smollm2", *SHAPES])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path, default=None, help="default: the one in slos-serve's cache folder")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.model in SHAPES:
        make_without_weights(options.folder, **SHAPES[options.model])
        return 0
    path = options.gguf or cache_folder() / "models" / GGUF
    if not path.exists():
        print(f"error: {path} is not there; run `slos-serve model fetch smollm2-135m`, or give --gguf", file=sys.stderr)
        return 2
    make_from_gguf(path, options.folder)
    return 0


def cache_folder() -> Path:
    given = os.environ.get("SLOS_SERVE_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "slos-serve"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slos-serve"


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def llama_config(**own: Any) -> dict[str, Any]:
    common = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    return common | own


# --- out of a GGUF


def make_from_gguf(path: Path, folder: Path) -> None:
    from gguf import GGUFReader  # Of no use to the tiny model.
    from safetensors.numpy import save_file

    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    weights = dict(weight_of(tensor, heads, kv_heads) for tensor in reader.tensors)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    bos, eos = fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]
    hidden = fields["llama.embedding_length"]
    config = llama_config(
        hidden_size=hidden,
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        rms_norm_eps=float(fields["llama.attention.layer_norm_rms_epsilon"]),
        rope_theta=float(fields["llama.rope.freq_base"]),
        max_position_embeddings=fields["llama.context_length"],
        vocab_size=weights["model.embed_tokens.weight"].shape[0],
        tie_word_embeddings="lm_head.weight" not in weights,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    write_json(folder / "config.json", config)
    tokens = fields["tokenizer.ggml.tokens"]
    special = [at for at, kind in enumerate(fields["tokenizer.ggml.token_type"]) if kind == CONTROL]
    merges = [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]]
    template = fields["tokenizer.chat_template"]
    write_tokenizer(folder, tokens, merges, special, (bos, eos), template, fields["llama.context_length"])
    print(f"{folder}: {len(weights)} tensors, {len(tokens)} tokens")


def weight_of(tensor: Any, heads: int, kv_heads: int) -> tuple[str, Any]:
    import numpy as np
    from gguf import dequantize

    weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if tensor.name in TENSORS:
        return TENSORS[tensor.name], np.ascontiguousarray(weight)
    _, layer, rest = tensor.name.split(".", 2)
    kind = rest.removesuffix(".weight")
    if kind in ("attn_q", "attn_k"):
        weight = unpermuted(weight, heads if kind == "attn_q" else kv_heads)
    return f"model.layers.{layer}.{BLOCK_TENSORS[kind]}.weight", np.ascontiguousarray(weight)


def unpermuted(weight: Any, heads: int) -> Any:
    """llama.cpp keeps the pairs that rotate together side by side, Hugging Face in two halves of each head."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


# --- without weights


def make_without_weights(folder: Path, **shape: Any) -> None:
    """Its tokenizer knows bytes; what its random weights say is made-up words."""
    config = llama_config(
        **{"rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2},
        **{"hidden_size": shape["num_attention_heads"] * shape["head_dim"], **shape},
    )
    write_json(folder / "config.json", config)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    known = [*special, *byte_characters()]
    words = [f"Ġw{number}" for number in range(config["vocab_size"] - len(known))]
    write_tokenizer(folder, [*known, *words], [], [0, 1, 2], (1, 2), CHAT_TEMPLATE, config["max_position_embeddings"])
    print(f"{folder}: no weights; serve it with --load-format dummy")


def byte_characters() -> list[str]:
    """What stands for each byte in a byte-level vocabulary: itself where it can be seen, else a character beyond."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    beyond = iter(range(0x100, 0x200))
    return [chr(byte) if byte in seen else chr(next(beyond)) for byte in range(256)]


# --- the tokenizer of both


def write_tokenizer(
    folder: Path,
    tokens: list[str],
    merges: list[list[str]],
    special: list[int],
    ends: tuple[int, int],
    template: str,
    longest: int,
) -> None:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": at, "content": tokens[at], **flags} for at in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [digits, {**byte_level, "add_prefix_space": False}],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: at for at, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    write_json(folder / "tokenizer.json", tokenizer)
    bos, eos = ends
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": longest,
            "bos_token": tokens[bos],
            "eos_token": tokens[eos],
            "chat_template": template,
            "clean_up_tokenization_spaces": False,
        },
    )
    write_json(folder / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos})


if __name__ == "__main__":
    sys.exit(main())
