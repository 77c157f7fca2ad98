"""A model folder without weights that hears sounds: a small Qwen2-Audio, with its processor. (Nearly all models that see need
torchvision, which the environment leaves out; to the scheduler both are the same.)"""

import json
import random
from pathlib import Path
from typing import Any

import numpy
from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

from .tiny_model import CONFIG
from .tiny_tokenizer import SOUND_TOKEN, tiny_tokenizer

_RATE, _LONGEST_S = 16_000, 2
"""A second has 100 frames, of which four make a token."""


def write_tiny_listener(folder: Path) -> str:
    """Writes it, and gives the path that vLLM takes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {**CONFIG, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    config = {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "text_config": text,
        "audio_config": {
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "d_model": 32,
            "max_source_positions": 1500,
        },
        "audio_token_index": SOUND_TOKEN,
        "torch_dtype": "float32",
    }
    sounds = WhisperFeatureExtractor(
        feature_size=16,
        sampling_rate=_RATE,
        return_attention_mask=True,
    )
    Qwen2AudioProcessor(feature_extractor=sounds, tokenizer=tiny_tokenizer()).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def prompt_with(chance: random.Random, sounds: int) -> dict[str, Any]:
    """Text, and sounds in it, of five that there are: of 10 to 50 tokens each."""
    tokens: list[int] = []
    heard: list[Any] = []
    for _ in range(sounds):
        tokens += [chance.randrange(3, 500) for _ in range(chance.choice([0, 3, 40]))]
        tokens.append(SOUND_TOKEN)
        number = chance.randrange(5)
        noise = numpy.random.default_rng(number).standard_normal(_RATE * _LONGEST_S * (number + 1) // 5)
        heard.append((noise.astype(numpy.float32), _RATE))
    tokens += [chance.randrange(3, 500) for _ in range(chance.choice([5, 60]))]
    return {"prompt_token_ids": tokens, **({"multi_modal_data": {"audio": heard}} if heard else {})}
