"""What is called of instructor, in each of its modes."""

from __future__ import annotations

from typing import Any

import instructor
import pytest
from anthropic import Anthropic
from instructor import Mode
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, field_validator

from table import Client, Server, call
from words import PLANT, PLANTS, TALL_PLANT, TOO_LONG, Plant, user


def of_openai(mode: Mode) -> Any:
    def opened(server: Server) -> Any:
        it = OpenAI(base_url=server.v1, api_key=server.key, max_retries=0)
        return instructor.from_openai(it, mode=mode)

    return opened


def of_async(server: Server) -> Any:
    it = AsyncOpenAI(base_url=server.v1, api_key=server.key, max_retries=0)
    return instructor.from_openai(it, mode=Mode.TOOLS)


def of_anthropic(mode: Mode) -> Any:
    def opened(server: Server) -> Any:
        return instructor.from_anthropic(
            Anthropic(base_url=server.url, api_key=server.key, max_retries=0), mode=mode
        )

    return opened


def openai_client(mode: Mode, asks: str = "/v1/chat/completions") -> Client:
    return Client(f"instructor, Mode.{mode.name}", ("instructor", "openai"), (asks,), of_openai(mode))


TOOLS = openai_client(Mode.TOOLS)
JSON = openai_client(Mode.JSON)
JSON_SCHEMA = openai_client(Mode.JSON_SCHEMA)
MD_JSON = openai_client(Mode.MD_JSON)
RESPONSES = openai_client(Mode.RESPONSES_TOOLS, "/v1/responses")
ASYNC = Client("instructor, async", ("instructor", "openai"), ("/v1/chat/completions",), of_async)
ANTHROPIC = Client(
    "instructor, from_anthropic", ("instructor", "anthropic"), ("/v1/messages",), of_anthropic(Mode.TOOLS)
)
CHATS = (TOOLS, JSON, JSON_SCHEMA, MD_JSON)
ALL = (*CHATS, RESPONSES, ANTHROPIC)


class TallPlant(BaseModel):
    name: str
    height: int

    @field_validator("height")
    @classmethod
    def is_tall(cls, height: int) -> int:
        if height < 5:
            raise ValueError("too small")
        return height


class Garden(BaseModel):
    plants: list[Plant]
    owner: str | None = None


def asked(server: Server, text: str = PLANT) -> dict[str, Any]:
    return {"model": server.model, "messages": user(text), "max_tokens": 300}


@call("create", *ALL)
def test_create(client: Client, server: Server) -> None:
    plant = client.open(server).create(response_model=Plant, **asked(server))
    assert isinstance(plant, Plant)


@call("create_with_completion, usage", *ALL)
def test_usage(client: Client, server: Server) -> None:
    _, made = client.open(server).create_with_completion(response_model=Plant, **asked(server))
    usage = made.usage
    assert getattr(usage, "completion_tokens", None) or usage.output_tokens > 5


@call("create, a nested model", TOOLS, JSON_SCHEMA, RESPONSES, ANTHROPIC)
def test_nested(client: Client, server: Server) -> None:
    garden = client.open(server).create(response_model=Garden, **asked(server, "hi"))
    assert isinstance(garden, Garden)


@call("create_partial", TOOLS, JSON, JSON_SCHEMA)
def test_partial(client: Client, server: Server) -> None:
    plants = list(client.open(server).create_partial(response_model=Plant, **asked(server)))
    assert isinstance(plants[-1].height, int)


@call("create_iterable", JSON, JSON_SCHEMA, MD_JSON)
def test_iterable(client: Client, server: Server) -> None:
    plants = list(client.open(server).create_iterable(response_model=Plant, **asked(server, PLANTS)))
    assert [plant.name for plant in plants] == ["elm", "oak"]


@call("validation, and asked again", JSON, MD_JSON)
def test_retry(client: Client, server: Server) -> None:
    plant = client.open(server).create(response_model=TallPlant, max_retries=2, **asked(server, TALL_PLANT))
    assert plant.height == 9


@call("an error of the server", *ALL)
def test_error(client: Client, server: Server) -> None:
    with pytest.raises(Exception, match="maximum context length"):
        client.open(server).create(response_model=Plant, max_retries=1, **asked(server, TOO_LONG))


@pytest.mark.anyio
@call("create", ASYNC)
async def test_async(client: Client, server: Server) -> None:
    assert isinstance(await client.open(server).create(response_model=Plant, **asked(server)), Plant)
