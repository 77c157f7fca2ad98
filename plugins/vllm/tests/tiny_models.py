"""Model folders without weights, of kinds that the scheduler must know more of than of a Llama."""

import json
from pathlib import Path
from typing import Any

from .tiny_model import CONFIG
from .weights import SMALL, TELLING

_LLAMA = {name: value for name, value in CONFIG.items() if name not in ("architectures", "model_type")}

CONFIGS: dict[str, dict[str, Any]] = {
    # Each layer sees the last 48 tokens.
    "windows": {
        **_LLAMA,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": 48,
    },
    # Every other layer sees the last 48 tokens.
    "windows and full attention": {
        **_LLAMA,
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 48,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 32,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    "states": {
        "architectures": ["Mamba2ForCausalLM"],
        "model_type": "mamba2",
        "hidden_size": 64,
        "num_heads": 4,
        "head_dim": 32,
        "state_size": 16,
        "n_groups": 1,
        "num_hidden_layers": 2,
        "chunk_size": 32,
        "vocab_size": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    },
    "states and full attention": {
        **_LLAMA,
        "architectures": ["GraniteMoeHybridForCausalLM"],
        "model_type": "granitemoehybrid",
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "shared_intermediate_size": 128,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 16,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 32,
    },
    "short convolutions and full attention": {
        **_LLAMA,
        "architectures": ["Lfm2ForCausalLM"],
        "model_type": "lfm2",
        "layer_types": ["conv", "full_attention"],
        "block_dim": 64,
        "block_ff_dim": 128,
        "conv_dim": 64,
        "conv_L_cache": 3,
        "norm_eps": 1e-5,
        "block_multiple_of": 32,
        "block_auto_adjust_ff_dim": False,
    },
}

CAN_SHARE = {kind: not kind.startswith("states") for kind in CONFIGS}
"""The processors' kernels cannot keep the states of prefixes."""

LARGEST_WEIGHT = {kind: SMALL if kind.startswith("short") else TELLING for kind in CONFIGS}
"""With steps of other sizes vLLM's own schedulers say other tokens of short convolutions, if weights tell."""


def write_model_of(kind: str, folder: Path) -> str:
    """Writes the folder, and gives the path that vLLM takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind]))
    return str(folder)
