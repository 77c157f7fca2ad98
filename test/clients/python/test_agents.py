"""What is called of OpenAI's Agents SDK."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent

from table import Client, Server, call
from words import COLD, TOO_LONG, WEATHER, Plant

set_tracing_disabled(True)


def opened(kind: Any) -> Any:
    def model(server: Server, key: str | None = None) -> Any:
        it = AsyncOpenAI(base_url=server.v1, api_key=key or server.key, max_retries=0)
        return kind(model=server.model, openai_client=it)

    return model


CHATS = Client(
    "openai-agents, OpenAIChatCompletionsModel",
    ("openai-agents",),
    ("/v1/chat/completions",),
    opened(OpenAIChatCompletionsModel),
)
RESPONSES = Client(
    "openai-agents, OpenAIResponsesModel",
    ("openai-agents",),
    ("/v1/responses",),
    opened(OpenAIResponsesModel),
)
BOTH = (CHATS, RESPONSES)


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"cold in {city}"


@pytest.mark.anyio
@call("Runner.run, usage", *BOTH)
async def test_run(client: Client, server: Server) -> None:
    made = await Runner.run(Agent(name="a", instructions="Be brief.", model=client.open(server)), "hi")
    assert len(made.final_output) > 10
    assert made.context_wrapper.usage.output_tokens > 5


@pytest.mark.anyio
@call("Runner.run_streamed", *BOTH)
async def test_stream(client: Client, server: Server) -> None:
    stream = Runner.run_streamed(Agent(name="a", model=client.open(server)), "hi")
    text = ""
    async for event in stream.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            text += event.data.delta
    assert stream.final_output == text


@pytest.mark.anyio
@call("tools in a loop", *BOTH)
async def test_tools(client: Client, server: Server) -> None:
    made = await Runner.run(Agent(name="a", model=client.open(server), tools=[weather]), WEATHER)
    assert made.final_output == COLD


@pytest.mark.anyio
@call("tool_choice required", *BOTH)
async def test_forced_tools(client: Client, server: Server) -> None:
    agent = Agent(
        name="a",
        model=client.open(server),
        tools=[weather],
        tool_use_behavior="stop_on_first_tool",
        model_settings=ModelSettings(tool_choice="required", parallel_tool_calls=False),
    )
    assert (await Runner.run(agent, "hi")).final_output.startswith("cold in")


@pytest.mark.anyio
@call("output_type", *BOTH)
async def test_output_type(client: Client, server: Server) -> None:
    made = await Runner.run(Agent(name="a", model=client.open(server), output_type=Plant), "hi")
    assert isinstance(made.final_output, Plant)


@pytest.mark.anyio
@call("handoffs", *BOTH)
async def test_handoffs(client: Client, server: Server) -> None:
    model = client.open(server)
    other = Agent(name="weather", model=model)
    made = await Runner.run(Agent(name="front", model=model, handoffs=[other]), "Say it.")
    assert made.last_agent.name == "weather"
    assert made.final_output == COLD


@pytest.mark.anyio
@call("errors", *BOTH)
async def test_errors(client: Client, server: Server) -> None:
    with pytest.raises(openai.AuthenticationError):
        await Runner.run(Agent(name="a", model=client.open(server, key="sk-wrong")), "hi")
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await Runner.run(Agent(name="a", model=client.open(server)), TOO_LONG)
