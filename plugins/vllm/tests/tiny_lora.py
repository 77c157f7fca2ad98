"""LoRA adapters for the tiny model, of random weights that are large enough to change what it says."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .tiny_model import CONFIG

RANK = 4
_HEADS, _HEAD_SIZE, _HIDDEN = CONFIG["num_attention_heads"], CONFIG["head_dim"], CONFIG["hidden_size"]


def write_tiny_lora(folder: Path, seed: int) -> str:
    """Writes one, and gives the path that vLLM takes."""
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(CONFIG["num_hidden_layers"]):
        of = f"base_model.model.model.layers.{layer}.self_attn"
        for name, heads in (("q_proj", _HEADS), ("v_proj", CONFIG["num_key_value_heads"])):
            weights[f"{of}.{name}.lora_A.weight"] = torch.randn(RANK, _HIDDEN, generator=random)
            weights[f"{of}.{name}.lora_B.weight"] = torch.randn(heads * _HEAD_SIZE, RANK, generator=random)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 16, "bias": "none"}
    config["target_modules"] = ["q_proj", "v_proj"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)
