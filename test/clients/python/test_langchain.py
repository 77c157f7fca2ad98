"""What is called of LangChain's models for OpenAI."""

from __future__ import annotations

import os
from typing import Any

os.environ["LANGSMITH_TRACING"] = "false"

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from table import Client, Server, call
from words import COLD, PLANT, TOO_LONG, TWICE, WEATHER, Plant


def opened(**fixed: Any) -> Any:
    def chat(server: Server, **options: Any) -> ChatOpenAI:
        asked = {"model": server.model, "base_url": server.v1, "api_key": server.key, "max_retries": 0}
        return ChatOpenAI(**{**asked, **fixed, **options})

    return chat


CHATS = Client(
    "LangChain (python)", ("langchain-openai",), ("/v1/chat/completions", "/v1/embeddings"), opened()
)
RESPONSES = Client(
    "LangChain (python), use_responses_api",
    ("langchain-openai",),
    ("/v1/responses",),
    opened(use_responses_api=True),
)
BOTH = (CHATS, RESPONSES)


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"cold in {city}"


@call("invoke, usage", *BOTH)
def test_invoke(client: Client, server: Server) -> None:
    message = client.open(server).invoke("hi")
    assert len(message.text) > 10
    assert message.usage_metadata["output_tokens"] > 5


@call("stream", *BOTH)
def test_stream(client: Client, server: Server) -> None:
    chunks = list(client.open(server).stream("hi"))
    assert len(chunks) > 5
    assert len("".join(chunk.text for chunk in chunks)) > 10


@pytest.mark.anyio
@call("ainvoke, astream, abatch", *BOTH)
async def test_async(client: Client, server: Server) -> None:
    model = client.open(server)
    assert len((await model.ainvoke("hi")).text) > 10
    assert len([chunk async for chunk in model.astream("hi")]) > 5
    assert len(await model.abatch([f"hi {i}" for i in range(8)])) == 8


@call("bind_tools, and results", *BOTH)
def test_tools(client: Client, server: Server) -> None:
    model = client.open(server).bind_tools([weather])
    first = model.invoke(WEATHER)
    [wanted] = first.tool_calls
    assert wanted["args"] == {"city": "Oslo"}
    result = ToolMessage(tool_call_id=wanted["id"], content="cold")
    assert model.invoke([HumanMessage(WEATHER), first, result]).text == COLD
    assert [one["args"]["city"] for one in model.invoke(TWICE).tool_calls] == ["Oslo", "Rome"]


@call("bind_tools, forced", *BOTH)
def test_forced_tools(client: Client, server: Server) -> None:
    for choice in ("weather", "any"):
        message = client.open(server).bind_tools([weather], tool_choice=choice).invoke("hi")
        assert message.tool_calls[0]["name"] == "weather"


@call("bind_tools, stream", *BOTH)
def test_streamed_tools(client: Client, server: Server) -> None:
    chunks = list(client.open(server).bind_tools([weather]).stream(WEATHER))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert [one["args"] for one in whole.tool_calls] == [{"city": "Oslo"}]


@call("with_structured_output: json_schema, function_calling, json_mode", *BOTH)
def test_structured(client: Client, server: Server) -> None:
    for method in ("json_schema", "function_calling", "json_mode"):
        model = client.open(server).with_structured_output(Plant, method=method)
        assert isinstance(model.invoke(f"In JSON: {PLANT}"), Plant)


@call("errors", *BOTH)
def test_errors(client: Client, server: Server) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.open(server, api_key="sk-wrong").invoke("hi")
    with pytest.raises(openai.NotFoundError):
        client.open(server, model="gpt-7").invoke("hi")
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.open(server).invoke(TOO_LONG)


@call("OpenAIEmbeddings (check_embedding_ctx_length=False)", CHATS)
def test_embeddings(client: Client, server: Server) -> None:
    # Else it cuts texts into the tokens of OpenAI's models, which it fetches, and which are none of this model's.
    embeddings = OpenAIEmbeddings(
        model=server.model, base_url=server.v1, api_key=server.key, check_embedding_ctx_length=False
    )
    assert len(embeddings.embed_documents(["a tree", "a forest"])) == 2
    assert embeddings.embed_query("a tree") == embeddings.embed_documents(["a tree"])[0]
