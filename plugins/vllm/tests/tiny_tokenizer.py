"""A tokenizer of 512 words, for models that must hear or be held to text: token 7 is "w7"."""

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

SOUND_TOKEN = 509


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{number}": number for number in range(3, SOUND_TOKEN)}
    marks = {"<|AUDIO|>": SOUND_TOKEN, "<|audio_bos|>": 510, "<|audio_eos|>": 511}
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **words, **marks}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        additional_special_tokens=list(marks),
    )
