"""SLOs of HTTP requests become arguments of vLLM's requests; what cannot be meant is refused by name. No vLLM is needed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from slos_serve_vllm.middleware import SloMiddleware

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
NOW_S = 1_800_000_000.0
NOW_MS = 1_800_000_000_000


class App:
    """Keeps what it was asked, and streams an answer."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}
        self.body = b""
        self.messages: list[dict[str, Any]] = []
        self.called = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.called += 1
        self.scope = scope
        while scope["type"] == "http":
            message = await receive()
            self.messages.append(message)
            self.body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        for part in (b"data: 1\n\n", b"data: [DONE]\n\n"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    @property
    def fields(self) -> dict[str, Any]:
        return json.loads(self.body)


class Exchange:
    """A request through the middleware."""

    def __init__(
        self,
        body: bytes | dict[str, Any],
        headers: dict[str, str] | None = None,
        *,
        path: str = CHAT,
        method: str = "POST",
        parts: int = 1,
        disconnects: bool = False,
        **options: Any,
    ) -> None:
        self.app = App()
        self.sent: list[dict[str, Any]] = []
        raw = json.dumps(body).encode() if isinstance(body, dict) else body
        size = max(1, -(-len(raw) // parts))
        cut = [raw[i : i + size] for i in range(0, len(raw), size)] or [b""]
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in cut]
        if disconnects:
            messages.append({"type": "http.disconnect"})
        else:
            messages[-1]["more_body"] = False
        self._messages = iter(messages)
        given = {**JSON, "content-length": str(len(raw)), **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        }
        middleware = SloMiddleware(self.app, clock=lambda: NOW_S, **options)
        asyncio.run(middleware(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        return next(self._messages, {"type": "http.disconnect"})

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))["error"]

    @property
    def args(self) -> dict[str, Any]:
        return self.app.fields["vllm_xargs"]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}


@pytest.mark.parametrize(
    "path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/below/v1/completions"]
)
def test_headers_become_arguments(path: str) -> None:
    headers = {
        "x-llm-d-slo-ttft-ms": "700",
        "x-slo-tpot-ms": "60.5",
        "x-slo-thinking-tpot-ms": "30",
        "x-llm-d-slo-max-gap-ms": "400",
        "x-llm-d-inference-objective": "chat",
        "x-llm-d-inference-fairness-id": "alice",
    }
    got = Exchange(chat(), headers, path=path)
    assert got.status == 200
    assert got.args == {
        "slo_ttft_ms": 700,
        "slo_tpot_ms": 60.5,
        "slo_thinking_tpot_ms": 30,
        "slo_max_gap_ms": 400,
        "slo_class": "chat",
        "slo_tenant": "alice",
        "slo_arrived_unix_ms": NOW_MS,
    }
    assert {**got.app.fields, "vllm_xargs": 0} == chat(vllm_xargs=0)


def test_the_length_is_that_of_the_new_body() -> None:
    got = Exchange(chat(), {"x-slo-ttft-ms": "5", "transfer-encoding": "chunked"}, parts=7)
    lengths = [value for name, value in got.app.scope["headers"] if name == b"content-length"]
    assert lengths == [str(len(got.app.body)).encode()]
    assert b"transfer-encoding" not in dict(got.app.scope["headers"])
    assert dict(got.app.scope["headers"])[b"content-type"] == b"application/json"


def test_strongest_first() -> None:
    headers = {
        "x-llm-d-slo-ttft-ms": "1",
        "x-slo-ttft-ms": "2",
        "x-slo-tpot-ms": "3",
        "x-slo-max-gap-ms": "4",
    }
    assert Exchange(chat(), headers).args["slo_ttft_ms"] == 1
    extra = {"slo_tpot_ms": 30, "slo_class": "code", "slo_arrived_unix_ms": 5, "mine": ["a", 1]}
    objective = {**headers, "x-llm-d-inference-objective": "chat"}
    got = Exchange(chat(vllm_xargs=extra), objective).args
    assert got == {**extra, "slo_ttft_ms": 1, "slo_max_gap_ms": 4}
    own = {"ttft_slowdown": 5, "class": "tools", "session": "s", "tpot_ms": None}
    last = Exchange(chat(vllm_xargs=extra, slo=own), objective)
    del got["slo_ttft_ms"]
    assert last.args == {**got, "slo_class": "tools", "slo_session": "s", "slo_ttft_slowdown": 5}
    assert "slo" not in last.app.fields


def test_flex_is_best_effort_where_nothing_else_is_said() -> None:
    assert Exchange(chat(service_tier="flex")).args == {
        "slo_tier": "best_effort",
        "slo_arrived_unix_ms": NOW_MS,
    }
    assert "slo_tier" not in Exchange(chat(service_tier="flex"), {"x-slo-tpot-ms": "9"}).args
    tenant = Exchange(chat(service_tier="flex"), {"x-llm-d-inference-fairness-id": "a"}).args
    assert (tenant["slo_tier"], tenant["slo_tenant"]) == ("best_effort", "a")


def test_the_gateway_api_names_a_tenant_where_llm_d_does_not() -> None:
    gateway = {"x-gateway-inference-fairness-id": "g"}
    assert Exchange(chat(), gateway).args["slo_tenant"] == "g"
    assert Exchange(chat(), {**gateway, "x-llm-d-inference-fairness-id": "a"}).args["slo_tenant"] == "a"
    assert Exchange(chat(), {**gateway, "x-llm-d-inference-fairness-id": ""}).args["slo_tenant"] == "g"


BAD = [
    ({}, {"x-slo-ttft-ms": "soon"}, "x-slo-ttft-ms", '"soon" is not a number of milliseconds'),
    ({}, {"x-slo-ttft-ms": ""}, "x-slo-ttft-ms", "is not a number"),
    ({}, {"x-slo-ttft-ms": "nan"}, "x-slo-ttft-ms", "is not a number"),
    ({}, {"x-llm-d-slo-tpot-ms": "-1"}, "x-llm-d-slo-tpot-ms", "between 0.01 ms and 1 h"),
    ({}, {"x-slo-max-gap-ms": "3600001"}, "x-slo-max-gap-ms", "between 1 ms and 1 h"),
    ({}, {"x-llm-d-inference-fairness-id": "two words"}, "x-llm-d-inference-fairness-id", "visible ASCII"),
    (
        {"vllm_xargs": {"slo_tppt_ms": 5}},
        {},
        "vllm_xargs.slo_tppt_ms",
        "is not a known argument (known: slo_class, ",
    ),
    ({"vllm_xargs": {"slo_tpot_ms": "5"}}, {}, "vllm_xargs.slo_tpot_ms", "must be a number"),
    ({"vllm_xargs": {"slo_tpot_ms": True}}, {}, "vllm_xargs.slo_tpot_ms", "must be a number"),
    ({"vllm_xargs": {"slo_tpot_ms": float("nan")}}, {}, "vllm_xargs.slo_tpot_ms", "must be a number"),
    ({"vllm_xargs": {"slo_ttft_slowdown": 0.5}}, {}, "vllm_xargs.slo_ttft_slowdown", "between 1 and 10000"),
    ({"vllm_xargs": {"slo_tier": "gold"}}, {}, "vllm_xargs.slo_tier", 'must be "slo" or "best_effort"'),
    ({"vllm_xargs": {"slo_class": ["chat"]}}, {}, "vllm_xargs.slo_class", "must be a text"),
    ({"vllm_xargs": {"slo_session": "s" * 257}}, {}, "vllm_xargs.slo_session", "1 to 256 characters"),
    ({"vllm_xargs": {"slo_tenant": ""}}, {}, "vllm_xargs.slo_tenant", "1 to 128"),
    ({"vllm_xargs": {"slo_arrived_unix_ms": -1}}, {}, "vllm_xargs.slo_arrived_unix_ms", "since 1970"),
    (
        {"vllm_xargs": {"slo_ttft_ms": 5, "slo_ttft_slowdown": 5}},
        {},
        "vllm_xargs.slo_ttft_slowdown",
        "not both",
    ),
    (
        {"vllm_xargs": {"slo_tier": "best_effort"}},
        {"x-slo-tpot-ms": "5"},
        "vllm_xargs.slo_tier",
        "no objectives",
    ),
    ({"slo": {"tppt_ms": 5}}, {}, "slo.tppt_ms", "is not a known field"),
    ({"slo": {"tenant": "bob"}}, {}, "slo.tenant", "is not a known field"),
    ({"slo": [5]}, {}, "slo", "must be an object"),
    ({"slo": {"class": "gold"}}, {}, "slo.class", "there is no SLO class gold (there are: chat, code)"),
    (
        {},
        {"x-llm-d-inference-objective": "gold"},
        "x-llm-d-inference-objective",
        "there is no SLO class gold",
    ),
]


@pytest.mark.parametrize(("fields", "headers", "param", "why"), BAD)
def test_what_cannot_be_meant_is_400_by_name(
    fields: dict[str, Any], headers: dict[str, str], param: str, why: str
) -> None:
    got = Exchange(chat(**fields), headers, classes=("chat", "code"))
    assert got.status == 400
    assert got.error["param"] == param
    assert got.error["type"] == "invalid_request_error"
    assert why in got.error["message"]
    assert got.app.called == 0


def test_a_header_that_comes_twice_is_no_number() -> None:
    app = App()
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "headers": [
            (b"content-type", b"application/json"),
            (b"x-slo-ttft-ms", b"5"),
            (b"X-SLO-TTFT-MS", b"6"),
        ],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(SloMiddleware(app)(scope, receive, send))
    assert sent[0]["status"] == 400


def test_classes_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    request = chat(vllm_xargs={"slo_class": "code"})
    assert Exchange(request).status == 200
    monkeypatch.setenv("SLOS_SERVE_CLASSES", "chat,tools")
    assert Exchange(request).error["code"] == "slo_class_not_found"
    monkeypatch.setenv("SLOS_SERVE_CLASSES", "chat,code")
    assert Exchange(request).status == 200


SLO = {"x-slo-ttft-ms": "5"}
UNTOUCHED = [
    (b'{"model": "m",  "messages": []}', {}, {}),
    (b'{"a": 1, "vllm_xargs": {"mine": 1}}', {}, {}),
    (b'{"a": "the \\"slo\\" of a request"}', {}, {}),
    (b'{"a": "caf\\u00e9"}', {}, {}),
    (b'{"service_tier": "auto", "why": "flex"}', {}, {}),
    (b'{"model": ', SLO, {}),
    (b"\xff\xfe{", SLO, {}),
    (b"[1]", SLO, {}),
    (b"", SLO, {}),
    (b"[" * 100_000, SLO, {}),
    (b'{"vllm_xargs": "slo_x"}', SLO, {}),
    (b'{"a": 1}', {**SLO, "content-type": "text/plain"}, {}),
    (b"\x1f\x8b", {**SLO, "content-encoding": "gzip"}, {}),
    (b'{"slo": 5}', SLO, {"path": "/v1/models"}),
    (b'{"slo": 5}', SLO, {"path": "/tokenize"}),
    (b'{"slo": 5}', SLO, {"method": "PUT"}),
    (b'{"slo": "' + b"x" * 500 + b'"}', SLO, {"largest_body_bytes": 100, "parts": 9}),
    (
        b'{"slo": "' + b"x" * 500 + b'"}',
        {**SLO, "content-length": "1"},
        {"largest_body_bytes": 100, "parts": 9},
    ),
]


@pytest.mark.parametrize(("body", "headers", "options"), UNTOUCHED)
@pytest.mark.parametrize("parts", [1, 3])
def test_other_bodies_go_through_as_they_are(
    body: bytes, headers: dict[str, str], options: dict[str, Any], parts: int
) -> None:
    got = Exchange(body, headers, **{"parts": parts, **options})
    assert got.status == 200
    assert got.app.body == body
    assert dict(got.app.scope["headers"])[b"content-length"] in (str(len(body)).encode(), b"1")


def test_a_large_body_with_slo_headers_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    Exchange(b"{}" * 100, SLO, largest_body_bytes=100)
    assert "too large to be read" in caplog.text
    caplog.clear()
    Exchange(b"{}" * 100, {}, largest_body_bytes=100)
    assert caplog.text == ""


def test_streams_are_passed_on_part_by_part_and_a_client_that_goes_is_seen() -> None:
    got = Exchange(chat(), SLO)
    assert [message.get("body") for message in got.sent[1:]] == [b"data: 1\n\n", b"data: [DONE]\n\n", b""]
    gone = Exchange(chat(), SLO, disconnects=True)
    assert [message["type"] for message in gone.app.messages][-1] == "http.disconnect"


def test_what_comes_after_the_body_comes_from_the_client() -> None:
    got: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.extend([(await receive())["type"], (await receive())["type"]])

    messages = iter(
        [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", b"application/json"), (b"x-slo-ttft-ms", b"5")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers}
    asyncio.run(SloMiddleware(app)(scope, receive, send))
    assert got == ["http.request", "http.disconnect"]


def test_sockets_and_lifespan_are_left_alone() -> None:
    for kind in ("lifespan", "websocket"):
        app = App()
        scope = {"type": kind, "path": CHAT, "headers": []}

        async def never() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            pass

        asyncio.run(SloMiddleware(app)(scope, never, send))
        assert app.called == 1


def test_numbers_of_other_fields_stay_as_they_are() -> None:
    raw = b'{"seed": 12345678901234567890, "temperature": 0.1, "x": 1e-7, "t": "\\ud83d\\ude00 \\ud800"}'
    got = Exchange(raw, SLO)
    assert got.app.fields["seed"] == 12345678901234567890
    assert {**got.app.fields, "vllm_xargs": 0} == {**json.loads(raw), "vllm_xargs": 0}
