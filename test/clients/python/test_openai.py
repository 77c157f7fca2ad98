"""What is called of OpenAI's client for Python."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from table import Client, Server, call
from words import COLD, ENDLESS, PARAMETERS, TOO_LONG, TOOL, TWICE, WEATHER, Plant, user, with_picture


def opened(server: Server, **options: Any) -> OpenAI:
    return OpenAI(**{"base_url": server.v1, "api_key": server.key, "max_retries": 0, **options})


def opened_async(server: Server) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.v1, api_key=server.key, max_retries=0)


CHATS = Client(
    "openai (python)",
    ("openai",),
    ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"),
    opened,
)
RESPONSES = Client("openai (python), responses", ("openai",), ("/v1/responses",), opened)
ASYNC = Client("openai (python), AsyncOpenAI", ("openai",), ("/v1/chat/completions",), opened_async)


def endless(server: Server) -> dict[str, Any]:
    return {"model": server.model, "messages": user("hi"), **ENDLESS}


@call("chat.completions.create", CHATS)
def test_create(client: Client, server: Server) -> None:
    made = client.open(server).chat.completions.create(model=server.model, messages=user("hi"))
    [choice] = made.choices
    assert choice.finish_reason == "stop"
    assert len(choice.message.content) > 10
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


@call("chat.completions.create, stream", CHATS)
def test_create_stream(client: Client, server: Server) -> None:
    chunks = list(
        client.open(server).chat.completions.create(
            model=server.model, messages=user("hi"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert len(chunks) > 10
    assert chunks[-1].usage.completion_tokens > 10
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"


@call("chat.completions.stream", CHATS)
def test_stream(client: Client, server: Server) -> None:
    with client.open(server).chat.completions.stream(model=server.model, messages=user("hi")) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        assert stream.get_final_completion().choices[0].message.content == text


@call("stop, seed, n", CHATS)
def test_sampling(client: Client, server: Server) -> None:
    create = client.open(server).chat.completions.create
    one = create(model=server.model, messages=user("hi"), n=3, seed=2**62 + 1)
    two = create(model=server.model, messages=user("hi"), n=3, seed=2**62 + 1)
    texts = [choice.message.content for choice in one.choices]
    assert texts == [choice.message.content for choice in two.choices]
    assert [choice.index for choice in one.choices] == [0, 1, 2]
    word = texts[0].split()[2]
    cut = create(model=server.model, messages=user("hi"), seed=2**62 + 1, stop=[word])
    assert cut.choices[0].message.content == texts[0].split(word)[0]


@call("logprobs, top_logprobs", CHATS)
def test_logprobs(client: Client, server: Server) -> None:
    made = client.open(server).chat.completions.create(
        model=server.model, messages=user("hi"), logprobs=True, top_logprobs=3
    )
    [choice] = made.choices
    text = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content).decode()
    assert text == choice.message.content
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob <= 0


@call("tools, auto, and results", CHATS)
def test_tools(client: Client, server: Server) -> None:
    create = client.open(server).chat.completions.create
    asked: dict[str, Any] = {"model": server.model, "tools": [TOOL]}
    first = create(messages=user(WEATHER), **asked).choices[0]
    assert first.finish_reason == "tool_calls"
    [wanted] = first.message.tool_calls
    assert json.loads(wanted.function.arguments) == {"city": "Oslo"}
    result = {"role": "tool", "tool_call_id": wanted.id, "content": "cold"}
    # As its own examples do: the client's own object goes back into the conversation.
    second = create(messages=[*user(WEATHER), first.message, result], **asked)
    assert second.choices[0].message.content == COLD


@call("tools, parallel", CHATS)
def test_parallel_tools(client: Client, server: Server) -> None:
    create = client.open(server).chat.completions.create
    asked: dict[str, Any] = {"model": server.model, "tools": [TOOL], "messages": user(TWICE)}
    both = create(**asked).choices[0].message.tool_calls
    assert [json.loads(one.function.arguments)["city"] for one in both] == ["Oslo", "Rome"]
    assert len({one.id for one in both}) == 2
    assert len(create(parallel_tool_calls=False, **asked).choices[0].message.tool_calls) == 1


@call("tools, forced", CHATS)
def test_forced_tools(client: Client, server: Server) -> None:
    create = client.open(server).chat.completions.create
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        made = create(model=server.model, tools=[TOOL], messages=user("hi"), tool_choice=choice)
        wanted = made.choices[0].message.tool_calls[0]
        assert json.loads(wanted.function.arguments)["city"] in ("Oslo", "Rome")


@call("tools, stream", CHATS)
def test_streamed_tools(client: Client, server: Server) -> None:
    asked: dict[str, Any] = {
        "model": server.model,
        "tools": [openai.pydantic_function_tool(Plant, name="weather")],
    }
    with client.open(server).chat.completions.stream(
        messages=user("hi"), tool_choice="required", **asked
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert all(isinstance(event.parsed_arguments, Plant) for event in done)
    assert len(done) >= 1


@call("chat.completions.parse, pydantic", CHATS)
def test_parse(client: Client, server: Server) -> None:
    made = client.open(server).chat.completions.parse(
        model=server.model, messages=user("hi"), response_format=Plant
    )
    assert isinstance(made.choices[0].message.parsed, Plant)


@call("completions.create, stream", CHATS)
def test_completions(client: Client, server: Server) -> None:
    create = client.open(server).completions.create
    whole = create(model=server.model, prompt="hi", max_tokens=12, temperature=0)
    parts = create(model=server.model, prompt="hi", max_tokens=12, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert whole.usage.completion_tokens == 12


@call("completions.create, echo and logprobs", CHATS)
def test_scores(client: Client, server: Server) -> None:
    made = client.open(server).completions.create(
        model=server.model, prompt="hello", max_tokens=0, echo=True, logprobs=2
    )
    [choice] = made.choices
    assert choice.text == "hello"
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in choice.logprobs.token_logprobs[1:])


@call("embeddings.create", CHATS)
def test_embeddings(client: Client, server: Server) -> None:
    create = client.open(server).embeddings.create
    # In base64 unless a form is named; the client decodes it.
    packed = create(model=server.model, input=["a tree", "a forest"])
    plain = create(model=server.model, input=["a tree", "a forest"], encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.usage.prompt_tokens > 2


@call("models.list, retrieve", CHATS)
def test_models(client: Client, server: Server) -> None:
    models = client.open(server).models
    assert server.model in [one.id for one in models.list()]
    assert models.retrieve(server.model).id == server.model


@call("extra_body: slo, metrics", CHATS)
def test_slo(client: Client, server: Server) -> None:
    made = client.open(server).chat.completions.create(
        model=server.model,
        messages=user("hi"),
        # Kept on a machine that is as busy as can be.
        extra_body={"slo": {"ttft_ms": 600_000, "tpot_ms": 60_000}},
    )
    assert made.model_extra["metrics"]["slo"]["attained"] is True


@call("errors: AuthenticationError, NotFoundError, BadRequestError", CHATS, RESPONSES)
def test_errors(client: Client, server: Server) -> None:
    def ask(text: Any, model: str = server.model, **options: Any) -> None:
        it = client.open(server, **options)
        if client is CHATS:
            it.chat.completions.create(model=model, messages=user(text))
        else:
            it.responses.create(model=model, input=text)

    with pytest.raises(openai.AuthenticationError) as wrong_key:
        ask("hi", api_key="sk-wrong")
    assert wrong_key.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as no_model:
        ask("hi", model="gpt-7")
    assert no_model.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        ask(TOO_LONG)
    assert too_long.value.code == "context_length_exceeded"
    assert too_long.value.request_id


@call("pictures are refused", CHATS)
def test_pictures(client: Client, server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match=r"(?i)image"):
        client.open(server).chat.completions.create(model=server.model, messages=with_picture("What is it?"))


@call("APITimeoutError", CHATS)
def test_timeout(client: Client, server: Server) -> None:
    with server.is_left_early(), pytest.raises(openai.APITimeoutError):
        client.open(server, timeout=0.3).chat.completions.create(**endless(server))


@call("a stream that is closed", CHATS)
def test_cancel(client: Client, server: Server) -> None:
    with server.is_left_early():
        stream = client.open(server).chat.completions.create(stream=True, **endless(server))
        next(iter(stream))
        assert server.running == 1
        stream.close()


@call("APIs that are not here: NotFoundError", CHATS)
def test_missing(client: Client, server: Server) -> None:
    with pytest.raises(openai.NotFoundError):
        client.open(server).images.generate(model=server.model, prompt="a tree")


@call("responses.create, and on with previous_response_id", RESPONSES)
def test_responses(client: Client, server: Server) -> None:
    responses = client.open(server).responses
    tools = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}]
    first = responses.create(model=server.model, input=WEATHER, tools=tools)
    [wanted] = [item for item in first.output if item.type == "function_call"]
    second = responses.create(
        model=server.model,
        tools=tools,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": wanted.call_id, "output": "cold"}],
    )
    assert second.output_text == COLD
    assert second.usage.total_tokens > first.usage.output_tokens


@call("responses.stream", RESPONSES)
def test_responses_stream(client: Client, server: Server) -> None:
    with client.open(server).responses.stream(model=server.model, input="hi") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text


@call("responses.parse, pydantic", RESPONSES)
def test_responses_parse(client: Client, server: Server) -> None:
    made = client.open(server).responses.parse(model=server.model, input="hi", text_format=Plant)
    assert isinstance(made.output_parsed, Plant)


@call("responses.retrieve, input_items.list, delete", RESPONSES)
def test_responses_stored(client: Client, server: Server) -> None:
    responses = client.open(server).responses
    made = responses.create(model=server.model, input="hi")
    assert responses.retrieve(made.id).output_text == made.output_text
    assert len(list(responses.input_items.list(made.id))) == 1
    responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        responses.retrieve(made.id)


@pytest.mark.anyio
@call("create, 20 at once", ASYNC)
async def test_async(client: Client, server: Server) -> None:
    async with client.open(server) as it:
        asked = [
            it.chat.completions.create(model=server.model, messages=user(f"hi {i}"), max_tokens=30)
            for i in range(20)
        ]
        made = await asyncio.gather(*asked)
    assert all(one.choices[0].message.content for one in made)


@pytest.mark.anyio
@call("create, stream", ASYNC)
async def test_async_stream(client: Client, server: Server) -> None:
    async with client.open(server) as it:
        stream = await it.chat.completions.create(model=server.model, messages=user("hi"), stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert len(text) > 10


@pytest.mark.anyio
@call("a task that is cancelled", ASYNC)
async def test_async_cancel(client: Client, server: Server) -> None:
    async with client.open(server) as it:
        with server.is_left_early():
            task = asyncio.create_task(it.chat.completions.create(**endless(server)))
            while server.running == 0:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
