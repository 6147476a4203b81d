"""The Docker engine's multiplexed log stream.

A frame is 8 bytes of header (stream, three zeros, length as a big-endian integer) and a payload: a time stamp, a space,
and at most 16 KiB of a line.
"""

import time
from datetime import datetime

from container_manager.executors.output import BoundedOutput, OutputLine

STREAMS = {1: "stdout", 2: "stderr"}
HEADER = 8


class Frames:
    """Takes the stream in pieces of any size; keeps its lines within `limit` bytes, each cut to a quarter of that."""

    def __init__(self, limit: int) -> None:
        self._output = BoundedOutput(limit)
        self._longest_line = limit // 4
        self._received = bytearray()
        self._unfinished: dict[int, tuple[int, bytearray]] = {}

    def feed(self, piece: bytes) -> None:
        received = self._received
        received += piece
        at, size = 0, len(received)
        while size - at >= HEADER:
            end = at + HEADER + int.from_bytes(received[at + 4 : at + HEADER], "big")
            if end > size:
                break
            self._frame(received[at], bytes(received[at + HEADER : end]))
            at = end
        del received[:at]

    def lines(self) -> list[OutputLine]:
        """What was received, with a last line that was not ended."""
        for stream, (at, text) in self._unfinished.items():
            self._add(stream, at, bytes(text))
        self._unfinished.clear()
        return list(self._output.lines())

    def _frame(self, stream: int, payload: bytes) -> None:
        if stream not in STREAMS:
            # The engine's own words about its log, without a time stamp.
            self._output.add(OutputLine("stderr", time.time_ns(), payload.decode(errors="replace").rstrip("\n")))
            return
        stamp, _, text = payload.partition(b" ")
        ended = text.endswith(b"\n")
        begun = self._unfinished.pop(stream, None)
        if begun is None and ended:
            self._add(stream, nanoseconds(stamp), text[:-1])
            return
        at, line = begun or (nanoseconds(stamp), bytearray())
        if len(line) < self._longest_line:
            line += text[:-1] if ended else text
        if ended:
            self._add(stream, at, bytes(line))
        else:
            self._unfinished[stream] = (at, line)

    def _add(self, stream: int, at: int, text: bytes) -> None:
        if len(text) > self._longest_line:
            text = text[: self._longest_line] + b" [container-manager: the line was cut here]"
        self._output.add(OutputLine(STREAMS[stream], at, text.decode(errors="replace")))


def nanoseconds(stamp: bytes) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time stamp in UTC."""
    moment, _, fraction = stamp.decode().removesuffix("Z").partition(".")
    seconds = _seconds(moment)
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))


def _seconds(moment: str, _last: dict[str, int] = {}) -> int:  # noqa: B006 - lines of one second come together
    if moment not in _last:
        _last.clear()
        _last[moment] = int(datetime.fromisoformat(moment + "+00:00").timestamp())
    return _last[moment]
