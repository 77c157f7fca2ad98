"""What is called of pydantic-ai, with its models for chats, responses and messages."""

from __future__ import annotations

import os
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput, RunContext, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from table import Client, Server, call
from words import COLD, PLANT, THINK, THOUGHT, TOO_LONG, WEATHER, Plant

os.environ["OPENAI_MAX_RETRIES"] = "0"


def of_openai(kind: Any) -> Any:
    def opened(server: Server, name: str | None = None, key: str | None = None) -> Any:
        provider = OpenAIProvider(base_url=server.v1, api_key=key or server.key)
        return kind(name or server.model, provider=provider)

    return opened


def of_anthropic(server: Server, name: str | None = None, key: str | None = None) -> AnthropicModel:
    provider = AnthropicProvider(base_url=server.url, api_key=key or server.key)
    return AnthropicModel(name or server.model, provider=provider)


CHATS = Client(
    "pydantic-ai, OpenAIChatModel",
    ("pydantic-ai-slim",),
    ("/v1/chat/completions",),
    of_openai(OpenAIChatModel),
)
RESPONSES = Client(
    "pydantic-ai, OpenAIResponsesModel",
    ("pydantic-ai-slim",),
    ("/v1/responses",),
    of_openai(OpenAIResponsesModel),
)
ANTHROPIC = Client("pydantic-ai, AnthropicModel", ("pydantic-ai-slim",), ("/v1/messages",), of_anthropic)
ALL = (CHATS, RESPONSES, ANTHROPIC)


@call("run_sync, usage", *ALL)
def test_run_sync(client: Client, server: Server) -> None:
    made = Agent(client.open(server), instructions="Be brief.").run_sync("hi")
    assert len(made.output) > 10
    assert made.usage.output_tokens > 5


@pytest.mark.anyio
@call("run, and on with message_history", *ALL)
async def test_history(client: Client, server: Server) -> None:
    agent = Agent(client.open(server))
    first = await agent.run("hi")
    second = await agent.run("And then?", message_history=first.all_messages())
    assert len(second.all_messages()) == 4


@pytest.mark.anyio
@call("run_stream", *ALL)
async def test_stream(client: Client, server: Server) -> None:
    async with Agent(client.open(server)).run_stream("hi") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 1


@pytest.mark.anyio
@call("thoughts", *ALL)
async def test_thoughts(client: Client, server: Server) -> None:
    made = await Agent(client.open(server)).run(
        THINK, model_settings={"thinking": True, "openai_reasoning_summary": "auto"}
    )
    thoughts = [part.content for part in made.response.parts if part.part_kind == "thinking"]
    assert [thought.strip() for thought in thoughts] == [THOUGHT]


@pytest.mark.anyio
@call("tools in a loop", *ALL)
async def test_tools(client: Client, server: Server) -> None:
    agent = Agent(client.open(server))
    asked: list[str] = []

    @agent.tool(retries=2)
    def weather(_: RunContext[None], city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return f"cold in {city}"

    assert (await agent.run(WEATHER)).output == COLD
    assert asked == ["Oslo"]


@pytest.mark.anyio
@call("ModelRetry", *ALL)
async def test_model_retry(client: Client, server: Server) -> None:
    agent = Agent(client.open(server))

    @agent.tool_plain(retries=2)
    def weather(city: str) -> str:
        """The weather of a city."""
        raise ModelRetry(f"{city} is not known")

    assert (await agent.run(WEATHER)).output == COLD


@pytest.mark.anyio
@call("output_type, ToolOutput", *ALL)
async def test_tool_output(client: Client, server: Server) -> None:
    made = await Agent(client.open(server), output_type=ToolOutput(Plant)).run("hi")
    assert isinstance(made.output, Plant)


@pytest.mark.anyio
@call("output_type, several", *ALL)
async def test_outputs(client: Client, server: Server) -> None:
    made = await Agent(client.open(server), output_type=[Plant, bool]).run("hi")
    assert isinstance(made.output, Plant | bool)


@pytest.mark.anyio
@call("output_type, NativeOutput", CHATS, RESPONSES)
async def test_native_output(client: Client, server: Server) -> None:
    made = await Agent(client.open(server), output_type=NativeOutput(Plant)).run("hi")
    assert isinstance(made.output, Plant)


@pytest.mark.anyio
@call("output_type, PromptedOutput", *ALL)
async def test_prompted_output(client: Client, server: Server) -> None:
    made = await Agent(client.open(server), output_type=PromptedOutput(Plant)).run(PLANT)
    assert isinstance(made.output, Plant)


@pytest.mark.anyio
@call("run_stream, output_type", *ALL)
async def test_stream_output(client: Client, server: Server) -> None:
    async with Agent(client.open(server), output_type=Plant).run_stream("hi") as stream:
        assert isinstance(await stream.get_output(), Plant)


@pytest.mark.anyio
@call("errors: ModelHTTPError", *ALL)
async def test_errors(client: Client, server: Server) -> None:
    with pytest.raises(ModelHTTPError) as wrong_key:
        await Agent(client.open(server, key="sk-wrong")).run("hi")
    assert wrong_key.value.status_code == 401
    with pytest.raises(ModelHTTPError) as no_model:
        await Agent(client.open(server, name="gpt-7")).run("hi")
    assert no_model.value.status_code == 404
    with pytest.raises(ModelHTTPError, match="maximum context length"):
        await Agent(client.open(server)).run(TOO_LONG)
