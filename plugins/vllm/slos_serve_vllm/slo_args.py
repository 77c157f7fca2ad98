"""The SLO of a request as vLLM's extra arguments (`vllm_xargs`), out of its body and its headers.

Names, bounds and precedence are those of the gateway (src/serve/slo-args.ts, src/serve/slo-resolve.ts): a client that was
written for the one is understood by the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

FIELD = "vllm_xargs"
MINUTES_60 = 3_600_000.0


class BadSlo(Exception):
    """A request whose SLO cannot be meant. `param` names the field or header that is wrong."""

    def __init__(self, param: str, why: str, code: str = "invalid_value") -> None:
        super().__init__(f"Invalid '{param}': {why}.")
        self.param = param
        self.code = code


@dataclass(frozen=True)
class Number:
    """A number within bounds, both ends included."""

    least: float
    most: float
    text: str

    def check(self, value: object, param: str) -> object:
        # bool is an int to Python, and no number of milliseconds.
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise BadSlo(param, "must be a number")
        if not self.least <= value <= self.most:
            raise BadSlo(param, f"the value must be {self.text}", "invalid_slo")
        return value


@dataclass(frozen=True)
class Text:
    """A text of so many characters at most, with a pattern that all of it has."""

    most: int
    pattern: str
    text: str

    def check(self, value: object, param: str) -> object:
        if not isinstance(value, str):
            raise BadSlo(param, "must be a text")
        if not value or len(value) > self.most or re.fullmatch(self.pattern, value, re.DOTALL) is None:
            raise BadSlo(param, f"must be {self.text}")
        return value


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: object, param: str) -> object:
        if value not in self.words:
            raise BadSlo(param, "must be " + " or ".join(f'"{word}"' for word in self.words))
        return value


_TTFT = Number(1, MINUTES_60, "between 1 ms and 1 h")
_TPOT = Number(0.01, MINUTES_60, "between 0.01 ms and 1 h")
_NAME = Text(256, ".*", "1 to 256 characters")

ARGUMENTS: Mapping[str, Number | Text | OneOf] = {
    "slo_class": _NAME,
    "slo_ttft_ms": _TTFT,
    "slo_ttft_slowdown": Number(1, 10_000, "between 1 and 10000 times the unloaded prefill time"),
    "slo_tpot_ms": _TPOT,
    "slo_thinking_tpot_ms": _TPOT,
    "slo_max_gap_ms": Number(1, MINUTES_60, "between 1 ms and 1 h"),
    "slo_tier": OneOf(("slo", "best_effort")),
    "slo_session": _NAME,
    "slo_tenant": Text(128, "[\x21-\x7e]+", "1 to 128 visible ASCII characters"),
    "slo_arrived_unix_ms": Number(0, math.inf, "milliseconds since 1970"),
}

# The gateway's own object in a body: its fields, as arguments.
SLO_FIELDS: Mapping[str, str] = {
    name.removeprefix("slo_"): name
    for name in ARGUMENTS
    if name not in ("slo_tier", "slo_tenant", "slo_arrived_unix_ms")
}
_TTFTS = ("slo_ttft_ms", "slo_ttft_slowdown")
_OBJECTIVES = (*_TTFTS, "slo_tpot_ms", "slo_thinking_tpot_ms", "slo_max_gap_ms")
_IN_HEADERS = ("slo_ttft_ms", "slo_tpot_ms", "slo_thinking_tpot_ms", "slo_max_gap_ms")
_CLASS_HEADER = "x-llm-d-inference-objective"
# The Gateway API's: its objectives are priorities elsewhere, so one that names no class here says nothing.
_GATEWAY_CLASS_HEADER = "x-gateway-inference-objective"
# llm-d's, else the Gateway API's.
_TENANT_HEADERS = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
_PREFIXES = ("x-llm-d-", "x-")

HEADERS: frozenset[str] = frozenset(
    {_CLASS_HEADER, _GATEWAY_CLASS_HEADER, *_TENANT_HEADERS}
    | {prefix + name.replace("_", "-") for prefix in _PREFIXES for name in _IN_HEADERS}
)


@dataclass(frozen=True)
class Given:
    """An argument and where the request says it."""

    value: Any
    param: str


def arguments_of(
    headers: Mapping[str, str], body: Mapping[str, Any], classes: Collection[str] | None = None
) -> dict[str, Any] | None:
    """The request's `slo_*` arguments, checked; None where it has none of any kind.

    Strongest first: the body's `slo`, its `vllm_xargs`, headers, its `service_tier`. `classes` are the names that
    there are, None where these are not known here. Raises BadSlo.
    """
    extra = body.get(FIELD)
    places = [
        _slo_object(body.get("slo")),
        _xargs(extra if isinstance(extra, dict) else {}),
        _headers(headers),
    ]
    given: dict[str, Given] = {}
    for place in places:
        clash = any(name in given for name in _TTFTS)
        given |= {
            name: one for name, one in place.items() if name not in given and not (clash and name in _TTFTS)
        }
    _check_class(given.get("slo_class"), classes)
    by_gateway = headers.get(_GATEWAY_CLASS_HEADER)
    if "slo_class" not in given and classes is not None and by_gateway in classes:
        given["slo_class"] = Given(by_gateway, _GATEWAY_CLASS_HEADER)
    _check_tier(given)
    if body.get("service_tier") == "flex" and not given.keys() & {"slo_class", "slo_tier", *_OBJECTIVES}:
        given["slo_tier"] = Given("best_effort", "service_tier")
    return {name: one.value for name, one in given.items()} or None


def _slo_object(slo: object) -> dict[str, Given]:
    if slo is None:
        return {}
    if not isinstance(slo, dict):
        raise BadSlo("slo", "must be an object")
    found = {}
    for field, value in slo.items():
        param = f"slo.{str(field)[:100]}"
        name = SLO_FIELDS.get(field)
        if name is None:
            raise BadSlo(param, "is not a known field")
        if value is not None:
            found[name] = Given(ARGUMENTS[name].check(value, param), param)
    return _one_ttft(found)


def _xargs(extra: Mapping[str, Any]) -> dict[str, Given]:
    found = {}
    for name, value in extra.items():
        if not name.startswith("slo_"):
            continue
        param = f"{FIELD}.{name[:100]}"
        if name not in ARGUMENTS:
            raise BadSlo(param, f"is not a known argument (known: {', '.join(ARGUMENTS)})")
        found[name] = Given(ARGUMENTS[name].check(value, param), param)
    return _one_ttft(found)


def _headers(headers: Mapping[str, str]) -> dict[str, Given]:
    found = {}
    for name in _IN_HEADERS:
        header = next((h for p in _PREFIXES if (h := p + name.replace("_", "-")) in headers), None)
        if header is not None:
            found[name] = Given(ARGUMENTS[name].check(_number(headers[header], header), header), header)
    tenant = next((header for header in _TENANT_HEADERS if headers.get(header)), _TENANT_HEADERS[0])
    for name, header in (("slo_class", _CLASS_HEADER), ("slo_tenant", tenant)):
        if header in headers:
            found[name] = Given(ARGUMENTS[name].check(headers[header], header), header)
    return found


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def _number(text: str, header: str) -> float:
    # Python alone reads "1_000" as a number, and JavaScript "0x10".
    value = float(text) if _DECIMAL.fullmatch(text.strip()) else math.nan
    if not math.isfinite(value):
        raise BadSlo(header, f'"{text[:40]}" is not a number of milliseconds', "invalid_slo")
    return int(value) if value.is_integer() else value


def _one_ttft(found: dict[str, Given]) -> dict[str, Given]:
    time, times = (found.get(name) for name in _TTFTS)
    if time is not None and times is not None:
        raise BadSlo(times.param, f"give either {time.param} or {times.param}, not both", "invalid_slo")
    return found


def _check_class(named: Given | None, classes: Collection[str] | None) -> None:
    if named is not None and classes is not None and named.value not in classes:
        there = ", ".join(classes)
        raise BadSlo(
            named.param,
            f"there is no SLO class {named.value[:100]} (there are: {there})",
            "slo_class_not_found",
        )


def _check_tier(given: Mapping[str, Given]) -> None:
    tier = given.get("slo_tier")
    if tier is not None and tier.value == "best_effort" and given.keys() & set(_OBJECTIVES):
        raise BadSlo(tier.param, "best effort has no objectives, and some are given", "invalid_slo")
