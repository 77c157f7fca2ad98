"""What clients ask, and the answers that test/clients/server.ts has for it."""

from typing import Literal

from pydantic import BaseModel, Field

WEATHER = "What is the weather in Oslo?"
TWICE = "What is the weather in Oslo and in Rome?"
COLD = "It is cold in Oslo."
PLANT = "Name a plant."
#: As the one field that instructor has for several.
PLANTS = "Name two plants."
#: The first answer is a plant of height 1; after a complaint, one of height 9.
TALL_PLANT = "Name a tall plant."
THINK = "THINK."
THOUGHT = "Let me see."
SO = "It is so."

#: An answer of a minute and more.
ENDLESS = {"max_tokens": 60_000, "extra_body": {"ignore_eos": True}}
#: More than the context.
TOO_LONG = "long " * 15_000

#: A picture of one pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Plant(BaseModel):
    """A plant."""

    name: Literal["oak", "elm"]
    height: int = Field(ge=0, le=9)


PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a city.", "parameters": PARAMETERS},
}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def with_picture(text: str) -> list[dict[str, object]]:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, picture]}]
