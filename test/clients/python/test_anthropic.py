"""What is called of Anthropic's client for Python."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool

from table import Client, Server, call
from words import (
    COLD,
    ENDLESS,
    PARAMETERS,
    PIXEL,
    PLANT,
    SO,
    THINK,
    THOUGHT,
    TOO_LONG,
    TWICE,
    WEATHER,
    Plant,
    user,
)


def opened(server: Server, **options: Any) -> Anthropic:
    return Anthropic(**{"base_url": server.url, "api_key": server.key, "max_retries": 0, **options})


def opened_async(server: Server) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=server.url, api_key=server.key, max_retries=0)


SYNC = Client("Anthropic's SDK (python)", ("anthropic",), ("/v1/messages",), opened)
ASYNC = Client("Anthropic's SDK (python), AsyncAnthropic", ("anthropic",), ("/v1/messages",), opened_async)
TOOL = {"name": "weather", "description": "The weather of a city.", "input_schema": PARAMETERS}


def asked(server: Server, text: str = "hi") -> dict[str, Any]:
    return {"model": server.model, "max_tokens": 200, "messages": user(text)}


@call("messages.create", SYNC)
def test_create(client: Client, server: Server) -> None:
    made = client.open(server).messages.create(system="Be brief.", **asked(server))
    assert made.stop_reason == "end_turn"
    assert made.content[0].type == "text"
    assert made.usage.input_tokens > 5
    assert made.usage.output_tokens > 5


@call("messages.create, stream", SYNC)
def test_create_stream(client: Client, server: Server) -> None:
    types = [event.type for event in client.open(server).messages.create(stream=True, **asked(server))]
    assert types[0] == "message_start"
    assert types[-1] == "message_stop"


@call("messages.stream", SYNC)
def test_stream(client: Client, server: Server) -> None:
    with client.open(server).messages.stream(**asked(server)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    assert final.usage.output_tokens > 5


@call("messages.stream, thoughts", SYNC)
def test_thoughts(client: Client, server: Server) -> None:
    thinking = {"type": "enabled", "budget_tokens": 100}
    with client.open(server).messages.stream(thinking=thinking, **asked(server, THINK)) as stream:
        thoughts = "".join(event.thinking for event in stream if event.type == "thinking")
        assert stream.get_final_text() == SO
    assert thoughts.strip() == THOUGHT


@call("stop_sequences", SYNC)
def test_stop(client: Client, server: Server) -> None:
    create = client.open(server).messages.create
    whole = create(extra_body={"seed": 1}, **asked(server)).content[0].text
    word = whole.split()[2]
    made = create(extra_body={"seed": 1}, stop_sequences=[word], **asked(server))
    assert made.stop_reason == "stop_sequence"
    assert made.stop_sequence == word


@call("tools, auto, and results", SYNC)
def test_tools(client: Client, server: Server) -> None:
    create = client.open(server).messages.create
    first = create(tools=[TOOL], **asked(server, WEATHER))
    assert first.stop_reason == "tool_use"
    [wanted] = [block for block in first.content if block.type == "tool_use"]
    assert wanted.input == {"city": "Oslo"}
    result = {"type": "tool_result", "tool_use_id": wanted.id, "content": "cold"}
    conversation = [
        *user(WEATHER),
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = create(tools=[TOOL], **{**asked(server), "messages": conversation})
    assert second.content[0].text == COLD


@call("tools, forced and parallel", SYNC)
def test_forced_tools(client: Client, server: Server) -> None:
    create = client.open(server).messages.create
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        made = create(tools=[TOOL], tool_choice=choice, **asked(server))
        assert made.content[0].input["city"] in ("Oslo", "Rome")
    both = create(tools=[TOOL], **asked(server, TWICE))
    assert [block.input["city"] for block in both.content if block.type == "tool_use"] == ["Oslo", "Rome"]


@call("messages.parse, pydantic", SYNC)
def test_parse(client: Client, server: Server) -> None:
    made = client.open(server).messages.parse(output_format=Plant, **asked(server, PLANT))
    assert isinstance(made.parsed_output, Plant)


@call("beta.messages.tool_runner (thread=False)", SYNC)
def test_tool_runner(client: Client, server: Server) -> None:
    @beta_tool
    def weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        return f"cold in {city}"

    runner = client.open(server).beta.messages.tool_runner(
        tools=[weather], thread=False, **asked(server, WEATHER)
    )
    assert runner.until_done().content[0].text == COLD


@call("messages.count_tokens", SYNC)
def test_count(client: Client, server: Server) -> None:
    counted = client.open(server).messages.count_tokens(model=server.model, messages=user("hi"))
    assert counted.input_tokens > 5


@call("errors: AuthenticationError, NotFoundError, BadRequestError", SYNC)
def test_errors(client: Client, server: Server) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        client.open(server, api_key="sk-wrong").messages.create(**asked(server))
    messages = client.open(server).messages
    with pytest.raises(anthropic.NotFoundError):
        messages.create(**{**asked(server), "model": "claude-9"})
    with pytest.raises(anthropic.BadRequestError, match="context"):
        messages.create(**asked(server, TOO_LONG))


@call("pictures are refused", SYNC)
def test_pictures(client: Client, server: Server) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    with pytest.raises(anthropic.BadRequestError, match=r"(?i)image"):
        client.open(server).messages.create(
            **{**asked(server), "messages": [{"role": "user", "content": [picture]}]}
        )


@call("APITimeoutError", SYNC)
def test_timeout(client: Client, server: Server) -> None:
    with server.is_left_early(), pytest.raises(anthropic.APITimeoutError):
        client.open(server, timeout=0.3).messages.create(**{**asked(server), **ENDLESS})


@call("a stream that is closed", SYNC)
def test_cancel(client: Client, server: Server) -> None:
    with (
        server.is_left_early(),
        client.open(server).messages.stream(**{**asked(server), **ENDLESS}) as stream,
    ):
        next(iter(stream.text_stream))
        assert server.running == 1


@pytest.mark.anyio
@call("messages.create", ASYNC)
async def test_async(client: Client, server: Server) -> None:
    async with client.open(server) as it:
        made = await it.messages.create(**asked(server))
    assert len(made.content[0].text) > 10


@pytest.mark.anyio
@call("messages.stream", ASYNC)
async def test_async_stream(client: Client, server: Server) -> None:
    async with client.open(server) as it, it.messages.stream(**asked(server)) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        assert (await stream.get_final_message()).content[0].text == text
