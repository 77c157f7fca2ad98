"""Frames: as the planner's side writes and reads them, whole, in pieces, and damaged."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from slos_serve_vllm.client import VERSION
from slos_serve_vllm.frames import FrameError, FrameReader, encode_frame, numbers_of, whole_column

GOLDEN = Path(__file__).resolve().parents[3] / "src" / "wire" / "golden"
MESSAGE = {
    "type": "step",
    "seq": 7,
    "nowUs": 12.5,
    "ran": None,
    "landed": [],
    "arrived": [],
    "cancelled": whole_column([3, 2**53 - 1]),
}


def test_comes_back_as_it_was_said_in_whatever_pieces() -> None:
    stream = encode_frame(MESSAGE) + encode_frame({"type": "hello"})
    for size in (1, 5, 12, 13, 1000):
        reader = FrameReader()
        messages = [one for at in range(0, len(stream), size) for one in reader.push(stream[at : at + size])]
        assert messages == [MESSAGE, {"type": "hello"}]
    assert numbers_of(messages[0]["cancelled"]) == [3, 2**53 - 1]


def test_refuses_what_was_damaged_on_its_way() -> None:
    frame = encode_frame(MESSAGE)
    for at in range(len(frame)):
        damaged = bytearray(frame)
        damaged[at] ^= 0x40
        with pytest.raises(FrameError):
            FrameReader().push(bytes(damaged))


def test_refuses_columns_that_are_none() -> None:
    for sent in (b"1234567", "12345678", None, [1, 2]):
        with pytest.raises(FrameError):
            numbers_of(sent)


@pytest.mark.parametrize("way", ["to-planner", "to-plugin"])
def test_says_and_reads_the_golden_frames_of_the_planners_side(way: str) -> None:
    golden = json.loads((GOLDEN / f"{way}-{VERSION}.json").read_text())
    assert golden
    for name, kept in golden.items():
        frame = bytes.fromhex(kept["frame"])
        (message,) = FrameReader().push(frame)
        kind = "i64" if message["type"] == "plan" else "f64"
        assert plain(message, kind) == kept["message"], name
        assert FrameReader().push(encode_frame(message)) == [message], name


def plain(value: Any, kind: str = "f64") -> Any:
    """As the golden files show it."""
    if isinstance(value, bytes):
        return {kind: array("q" if kind == "i64" else "d", value).tolist()}
    if isinstance(value, list):
        return [plain(one, kind) for one in value]
    return {name: plain(one, kind) for name, one in value.items()} if isinstance(value, dict) else value
