"""Prompts with pictures in them, without pixels: what the scheduler knows of them."""

import random

from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalKwargsItem, PlaceholderRange

_PLACEHOLDER = 511
_SIZES = (8, 40, 64)


def with_pictures(chance: random.Random, prompt: list[int]) -> tuple[list[int], list[MultiModalFeatureSpec]]:
    """The prompt with up to three pictures between its tokens, of a dozen that there are."""
    tokens: list[int] = []
    pictures: list[MultiModalFeatureSpec] = []
    begin = 0
    for cut in sorted(chance.randint(0, len(prompt)) for _ in range(chance.randint(0, 3))):
        tokens += prompt[begin:cut]
        begin = cut
        number = chance.randrange(12)
        size = _SIZES[number % len(_SIZES)]
        place = PlaceholderRange(offset=len(tokens), length=size)
        item = MultiModalKwargsItem.dummy()
        pictures.append(MultiModalFeatureSpec(item, "image", f"picture-{number}", place))
        tokens += [_PLACEHOLDER] * size
    return tokens + prompt[begin:], pictures
