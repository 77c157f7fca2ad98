"""Frames on a byte stream, as the planner's side has them: length, CRC-32 of the body, CRC-32 of these two (4 bytes each,
little endian), and the body, MessagePack. Columns of numbers are byte strings of float64, in plans of int64."""

import struct
import sys
from array import array
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import msgspec

MOST_FRAME_BYTES = 64 * 2**20
_HEADER = struct.Struct("<III")
_SUMMED = struct.Struct("<II")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class FrameError(Exception):
    """What arrived is no frame: the stream is of no use any more."""


def encode_frame(message: object) -> bytes:
    """A message with its header. Raises FrameError where it is longer than a frame may be."""
    body = _encode(message)
    if len(body) > MOST_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is longer than {MOST_FRAME_BYTES}")
    body_check = crc32(body)
    return _HEADER.pack(len(body), body_check, crc32(_SUMMED.pack(len(body), body_check))) + body


class FrameReader:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def push(self, piece: bytes) -> list[Any]:
        """The messages that `piece` completes. Raises FrameError at the first that is none."""
        # As a rule a piece is one whole frame.
        if not self._held and _length_of(piece) == len(piece) - _HEADER.size:
            return [_read_body(memoryview(piece)[_HEADER.size :], piece)]
        self._held += piece
        messages: list[Any] = []
        while (length := _length_of(self._held)) is not None and len(self._held) >= _HEADER.size + length:
            frame = bytes(self._held[: _HEADER.size + length])
            del self._held[: len(frame)]
            messages.append(_read_body(memoryview(frame)[_HEADER.size :], frame))
        return messages


def _length_of(held: bytes | bytearray) -> int | None:
    """Bytes of the first frame's body; None: its header is not there yet."""
    if len(held) < _HEADER.size:
        return None
    length, body_check, header_check = _HEADER.unpack_from(held)
    # A wrong length would have this end wait, for ever, for what never comes.
    if crc32(_SUMMED.pack(length, body_check)) != header_check:
        raise FrameError("a frame's header is not what was sent")
    if length > MOST_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes is longer than {MOST_FRAME_BYTES}")
    return int(length)


def _read_body(body: memoryview, frame: bytes) -> Any:
    if crc32(body) != _HEADER.unpack_from(frame)[1]:
        raise FrameError("a frame is not what was sent")
    try:
        return _decode(body)
    except msgspec.DecodeError as error:
        raise FrameError(f"a frame cannot be read ({error})") from error


def column(values: Iterable[float]) -> bytes:
    """Numbers as float64, little endian."""
    numbers = list(values)
    return struct.pack(f"<{len(numbers)}d", *numbers)


def whole_column(values: Iterable[int]) -> bytes:
    """Whole numbers as int64, little endian."""
    numbers = list(values)
    return struct.pack(f"<{len(numbers)}q", *numbers)


def numbers_of(sent: object) -> list[int]:
    """A column of whole numbers, int64, read back. Raises FrameError where it is none."""
    if not isinstance(sent, bytes) or len(sent) % 8 != 0:
        raise FrameError("a column of numbers is none")
    numbers = array("q", sent)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
