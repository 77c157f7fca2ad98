"""Frames on a byte stream, as the planner's side has them: length, CRC-32 of the body, CRC-32 of these two (4 bytes each,
little endian), and the body, MessagePack. Columns of numbers are byte strings of float64."""

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
        held: bytes | bytearray = piece
        if self._held:
            self._held += piece
            held = self._held
        messages: list[Any] = []
        at = 0
        while len(held) - at >= _HEADER.size:
            length, body_check, header_check = _HEADER.unpack_from(held, at)
            # A wrong length would have this end wait, for ever, for what never comes.
            if crc32(_SUMMED.pack(length, body_check)) != header_check:
                raise FrameError("a frame's header is not what was sent")
            if length > MOST_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes is longer than {MOST_FRAME_BYTES}")
            start = at + _HEADER.size
            if len(held) < start + length:
                break
            messages.append(_read_body(bytes(held[start : start + length]), body_check))
            at = start + length
        if at > 0 or held is piece:
            self._held = bytearray(held[at:])
        return messages


def _read_body(body: bytes, body_check: int) -> Any:
    if crc32(body) != body_check:
        raise FrameError("a frame is not what was sent")
    try:
        return _decode(body)
    except msgspec.DecodeError as error:
        raise FrameError(f"a frame cannot be read ({error})") from error


def column(values: Iterable[float]) -> bytes:
    """Numbers as float64, little endian."""
    numbers = array("d", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def numbers_of(sent: object) -> list[int]:
    """A column of whole numbers, read back. Raises FrameError where it is none."""
    if not isinstance(sent, bytes) or len(sent) % 8 != 0:
        raise FrameError("a column of numbers is none")
    numbers = array("d", sent)
    if sys.byteorder == "big":
        numbers.byteswap()
    try:
        return list(map(int, numbers))
    except (OverflowError, ValueError) as error:
        raise FrameError(f"a column of whole numbers has others ({error})") from error
