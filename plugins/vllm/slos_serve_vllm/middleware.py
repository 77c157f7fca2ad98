"""Middleware of vLLM's own server (`--middleware slos_serve_vllm.middleware.SloMiddleware`): what a request says of its SLO,
in headers or in its body, becomes the arguments that the scheduler reads, so that it works without a gateway as well.

Bodies of other paths, other types, or a size that no request has, go through as they are; answers are never touched.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from .slo_args import FIELD, HEADERS, BadSlo, arguments_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
# Names of the SLO classes that there are, with commas between; where it is not set, the planner says what it does not know.
CLASSES_VARIABLE = "SLOS_SERVE_CLASSES"
LARGEST_BODY_BYTES = 16 * 1024 * 1024
# A body without any of these says nothing of an SLO, and is not parsed.
_SIGNS = (b'"slo', b'"flex"', b"\\u")


class SloMiddleware:
    """An ASGI application around vLLM's."""

    def __init__(
        self,
        app: App,
        *,
        classes: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
        largest_body_bytes: int = LARGEST_BODY_BYTES,
    ) -> None:
        """`clock`: seconds since 1970."""
        self._app = app
        self._classes = _classes_of_environment() if classes is None else classes
        self._clock = clock
        self._largest = largest_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _asks_for_tokens(scope):
            await self._app(scope, receive, send)
            return
        arrived_ms = round(self._clock() * 1000)
        headers = _headers_of(scope)
        read = await self._read(headers, receive)
        if read.body is None:
            if headers.keys() & HEADERS and not read.gone:
                log.warning(
                    "%s: a body that is too large to be read; its SLO headers are not told", scope["path"]
                )
            await self._app(scope, read.replayed(receive), send)
            return
        try:
            body = self._rewritten(headers, read.body, arrived_ms)
        except BadSlo as error:
            await _refuse(error, send)
            return
        if body is None:
            await self._app(scope, read.replayed(receive), send)
            return
        whole = _Read([{"type": "http.request", "body": body, "more_body": False}], body)
        await self._app(_with_length(scope, len(body)), whole.replayed(receive), send)

    async def _read(self, headers: dict[str, str], receive: Receive) -> _Read:
        """The whole body, if it is not too large."""
        if _length(headers) > self._largest:
            return _Read([], None)
        messages: list[Message] = []
        parts: list[bytes] = []
        size = 0
        while size <= self._largest:
            message = await receive()
            messages.append(message)
            if message["type"] != "http.request":
                return _Read(messages, None, gone=True)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if not message.get("more_body", False):
                return _Read(messages, b"".join(parts) if size <= self._largest else None)
        return _Read(messages, None)

    def _rewritten(self, headers: dict[str, str], body: bytes, arrived_ms: int) -> bytes | None:
        """The body with its SLO as arguments; None where it stays as it is. Raises BadSlo."""
        if not headers.keys() & HEADERS and not any(sign in body for sign in _SIGNS):
            return None
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            return None  # vLLM has its own words for it.
        if not isinstance(fields, dict):
            return None
        extra = fields.get(FIELD)
        if extra is not None and not isinstance(extra, dict):
            return None
        arguments = arguments_of(headers, fields, self._classes)
        if arguments is None:
            return None
        fields.pop("slo", None)
        fields[FIELD] = {**(extra or {}), "slo_arrived_unix_ms": arrived_ms, **arguments}
        return json.dumps(fields).encode()


class _Read:
    """What was received of a request, to be received once more."""

    def __init__(self, messages: list[Message], body: bytes | None, *, gone: bool = False) -> None:
        self._messages = messages
        self.body = body
        self.gone = gone

    def replayed(self, receive: Receive) -> Receive:
        left = iter(self._messages)

        async def again() -> Message:
            for message in left:
                return message
            return await receive()

        return again


def _classes_of_environment() -> tuple[str, ...] | None:
    names = tuple(name for name in os.environ.get(CLASSES_VARIABLE, "").split(",") if name)
    return names or None


def _asks_for_tokens(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(PATHS):
        return False
    headers = _headers_of(scope)
    is_json = headers.get("content-type", "").lower().startswith("application/json")
    return is_json and headers.get("content-encoding", "identity") == "identity"


def _headers_of(scope: Scope) -> dict[str, str]:
    """Of one that comes twice both values: no number any more, so that it is refused and not guessed at."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _with_length(scope: Scope, size: int) -> Scope:
    dropped = (b"content-length", b"transfer-encoding")
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in dropped]
    return {**scope, "headers": [*kept, (b"content-length", str(size).encode())]}


async def _refuse(error: BadSlo, send: Send) -> None:
    """400 in OpenAI's form."""
    told = {"message": str(error), "type": "invalid_request_error", "param": error.param, "code": error.code}
    body = json.dumps({"error": told}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
