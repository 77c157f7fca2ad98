"""What is called of LiteLLM: through its rows for OpenAI, for vLLM and for Anthropic."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

# Its table of prices would be fetched from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pytest

from table import Client, Server, call
from words import COLD, ENDLESS, TOO_LONG, TOOL, TWICE, WEATHER, Plant, user, with_picture

litellm.telemetry = False
litellm.num_retries = 0


def opened(provider: str, base: Callable[[Server], str]) -> Callable[..., dict[str, Any]]:
    """The options that point it at the server."""

    def options(server: Server, **others: Any) -> dict[str, Any]:
        model = f"{provider}/{others.pop('name', server.model)}"
        return {"model": model, "api_base": base(server), "api_key": server.key, "max_retries": 0, **others}

    return options


OPENAI = Client("LiteLLM, openai/", ("litellm",), ("/v1/chat/completions",), opened("openai", lambda s: s.v1))
VLLM = Client(
    "LiteLLM, hosted_vllm/", ("litellm",), ("/v1/chat/completions",), opened("hosted_vllm", lambda s: s.v1)
)
ANTHROPIC = Client(
    "LiteLLM, anthropic/", ("litellm",), ("/v1/messages",), opened("anthropic", lambda s: s.url)
)
ALL = (OPENAI, VLLM, ANTHROPIC)
CHATS = (OPENAI, VLLM)


@call("completion", *ALL)
def test_completion(client: Client, server: Server) -> None:
    made = litellm.completion(messages=user("hi"), max_tokens=50, **client.open(server))
    assert len(made.choices[0].message.content) > 10
    assert made.choices[0].finish_reason == "stop"
    assert made.usage.completion_tokens > 5


@call("completion, stream", *ALL)
def test_stream(client: Client, server: Server) -> None:
    chunks = list(
        litellm.completion(
            messages=user("hi"),
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=50,
            **client.open(server),
        )
    )
    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)) > 10
    assert litellm.stream_chunk_builder(chunks).usage.completion_tokens > 5


@pytest.mark.anyio
@call("acompletion", *ALL)
async def test_async(client: Client, server: Server) -> None:
    made = await litellm.acompletion(messages=user("hi"), max_tokens=50, **client.open(server))
    assert len(made.choices[0].message.content) > 10


@call("tools, auto, and results", *ALL)
def test_tools(client: Client, server: Server) -> None:
    asked: dict[str, Any] = {"tools": [TOOL], "max_tokens": 200, **client.open(server)}
    first = litellm.completion(messages=user(WEATHER), **asked).choices[0]
    assert first.finish_reason == "tool_calls"
    [wanted] = first.message.tool_calls
    assert json.loads(wanted.function.arguments) == {"city": "Oslo"}
    result = {"role": "tool", "tool_call_id": wanted.id, "content": "cold"}
    second = litellm.completion(messages=[*user(WEATHER), first.message, result], **asked)
    assert second.choices[0].message.content == COLD


@call("tools, parallel", *ALL)
def test_parallel_tools(client: Client, server: Server) -> None:
    made = litellm.completion(messages=user(TWICE), tools=[TOOL], max_tokens=200, **client.open(server))
    cities = [json.loads(one.function.arguments)["city"] for one in made.choices[0].message.tool_calls]
    assert cities == ["Oslo", "Rome"]


@call("tools, forced", *ALL)
def test_forced_tools(client: Client, server: Server) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        made = litellm.completion(
            messages=user("hi"), tools=[TOOL], tool_choice=choice, max_tokens=200, **client.open(server)
        )
        wanted = made.choices[0].message.tool_calls[0]
        assert json.loads(wanted.function.arguments)["city"] in ("Oslo", "Rome")


@call("response_format, pydantic", *ALL)
def test_response_format(client: Client, server: Server) -> None:
    made = litellm.completion(
        messages=user("hi"), response_format=Plant, max_tokens=200, **client.open(server)
    )
    Plant.model_validate_json(made.choices[0].message.content)


@call("stop, seed, n, logprobs", *CHATS)
def test_sampling(client: Client, server: Server) -> None:
    asked: dict[str, Any] = {"messages": user("hi"), "seed": 7, **client.open(server)}
    one = litellm.completion(n=2, **asked)
    assert len(one.choices) == 2
    text = one.choices[0].message.content
    word = text.split()[2]
    assert litellm.completion(stop=[word], **asked).choices[0].message.content == text.split(word)[0]
    scored = litellm.completion(logprobs=True, top_logprobs=2, **asked)
    assert len(scored.choices[0].logprobs.content[0].top_logprobs) == 2


@call("errors: AuthenticationError, NotFoundError, ContextWindowExceededError", *ALL)
def test_errors(client: Client, server: Server) -> None:
    def ask(text: str = "hi", **others: Any) -> None:
        litellm.completion(messages=user(text), max_tokens=50, **client.open(server, **others))

    with pytest.raises(litellm.AuthenticationError):
        ask(api_key="sk-wrong")
    with pytest.raises(litellm.NotFoundError):
        ask(name="gpt-7")
    with pytest.raises(litellm.ContextWindowExceededError):
        ask(TOO_LONG)


@call("pictures are refused: BadRequestError", *ALL)
def test_pictures(client: Client, server: Server) -> None:
    with pytest.raises(litellm.BadRequestError, match=r"(?i)image"):
        litellm.completion(messages=with_picture("What is it?"), max_tokens=50, **client.open(server))


@call("Timeout", OPENAI)
def test_timeout(client: Client, server: Server) -> None:
    with server.is_left_early(), pytest.raises(litellm.Timeout):
        litellm.completion(messages=user("hi"), timeout=0.3, **ENDLESS, **client.open(server))


@call("text_completion", OPENAI)
def test_text_completion(client: Client, server: Server) -> None:
    options = {**client.open(server), "model": f"text-completion-openai/{server.model}"}
    made = litellm.text_completion(prompt="hi", max_tokens=12, **options)
    assert len(made.choices[0].text) > 3


@call("embedding", *CHATS)
def test_embedding(client: Client, server: Server) -> None:
    made = litellm.embedding(input=["a tree", "a forest"], **client.open(server))
    assert len(made.data) == 2
    assert sum(value * value for value in made.data[0]["embedding"]) == pytest.approx(1, abs=1e-4)


@call("responses", OPENAI)
def test_responses(client: Client, server: Server) -> None:
    made = litellm.responses(input="hi", **client.open(server))
    assert len(made.output_text) > 10
