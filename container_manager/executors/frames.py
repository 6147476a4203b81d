"""The Docker engine's multiplexed log stream.

A frame is 8 bytes of header (stream, three zeros, length as a big-endian integer) and a payload: a time stamp, a space,
and at most 16 KiB of a line.
"""

import time
from datetime import datetime

from container_manager.executors.output import OutputLine

STREAMS = {1: "stdout", 2: "stderr"}
HEADER = 8


class Frames:
    """Takes the stream in pieces of any size, and gives its lines, each cut to `longest` bytes."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._received = bytearray()
        self._unfinished: dict[int, tuple[int, bytearray]] = {}

    def feed(self, piece: bytes) -> list[OutputLine]:
        """The lines that this piece has ended."""
        received = self._received
        received += piece
        lines: list[OutputLine] = []
        at, size = 0, len(received)
        while size - at >= HEADER:
            end = at + HEADER + int.from_bytes(received[at + 4 : at + HEADER], "big")
            if end > size:
                break
            line = self._frame(received[at], bytes(received[at + HEADER : end]))
            if line is not None:
                lines.append(line)
            at = end
        del received[:at]
        return lines

    def rest(self) -> list[OutputLine]:
        """The last lines, when they were not ended."""
        lines = [self._line(stream, at, bytes(text)) for stream, (at, text) in self._unfinished.items()]
        self._unfinished.clear()
        return lines

    def _frame(self, stream: int, payload: bytes) -> OutputLine | None:
        if stream not in STREAMS:
            # The engine's own words about its log, without a time stamp.
            return OutputLine("stderr", time.time_ns(), payload.decode(errors="replace").rstrip("\n"))
        stamp, _, text = payload.partition(b" ")
        ended = text.endswith(b"\n")
        begun = self._unfinished.pop(stream, None)
        if begun is None and ended:
            return self._line(stream, nanoseconds(stamp), text[:-1])
        at, line = begun or (nanoseconds(stamp), bytearray())
        if len(line) < self._longest:
            line += text[:-1] if ended else text
        if ended:
            return self._line(stream, at, bytes(line))
        self._unfinished[stream] = (at, line)
        return None

    def _line(self, stream: int, at: int, text: bytes) -> OutputLine:
        if len(text) > self._longest:
            text = text[: self._longest] + b" [container-manager: the line was cut here]"
        return OutputLine(STREAMS[stream], at, text.decode(errors="replace"))


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
