"""The Docker engine's multiplexed log stream.

A frame is 8 bytes of header (stream, three zeros, length as a big-endian integer) and a payload: a time stamp, a space,
and at most 16 KiB of a line.

Text before a carriage return is overwritten, as on a terminal: a progress bar becomes one line for each full frame of
its updates, and one for its last state.
"""

import time
from datetime import datetime

from container_manager.executors.output import OutputLine

STREAMS = {1: "stdout", 2: "stderr"}
HEADER = 8

JSON_AROUND = 70
"""Bytes of JSON that an engine stores around each piece of a line; characters that it escapes take a little more."""


class Frames:
    """Parses the stream from pieces of any size into lines, each cut to `longest` bytes."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._received = bytearray()
        self.stored = 0
        """About how many bytes the engine stores for what was read."""
        # By stream: its time, the line so far, and how many bytes of it were cut.
        self._unfinished: dict[int, tuple[int, bytearray, int]] = {}

    def feed(self, piece: bytes) -> list[OutputLine]:
        """The lines that end in this piece."""
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
        """The last lines of both streams, if they have no line end."""
        lines = [self._line(stream, at, bytes(text), cut) for stream, (at, text, cut) in self._unfinished.items()]
        self._unfinished.clear()
        return lines

    def _frame(self, stream: int, payload: bytes) -> OutputLine | None:
        if stream not in STREAMS:
            # A message of the engine about its log, without a time stamp.
            return OutputLine("stderr", time.time_ns(), payload.decode(errors="replace").rstrip("\n"))
        stamp, _, text = payload.partition(b" ")
        self.stored += len(text) + JSON_AROUND
        ended = text.endswith(b"\n")
        begun = self._unfinished.pop(stream, None)
        more = text[:-1] if ended else text
        if b"\r" in more:
            return self._overwritten(stream, stamp, begun[1] if begun else b"", more, ended=ended)
        if begun is None and ended:
            return self._line(stream, nanoseconds(stamp), more)
        at, line, cut = begun or (nanoseconds(stamp), bytearray(), 0)
        room = max(self._longest - len(line), 0)
        line += more[:room]
        cut += len(more[room:])
        if ended:
            return self._line(stream, at, bytes(line), cut)
        self._unfinished[stream] = (at, line, cut)
        return None

    def _overwritten(
        self, stream: int, stamp: bytes, begun: bytes | bytearray, more: bytes, *, ended: bool
    ) -> OutputLine:
        """The last state of a line that was written over itself; what follows it begins another line."""
        at = nanoseconds(stamp)
        *before, last = (bytes(begun) + more).split(b"\r")
        state = next((text for text in reversed(before) if text), b"")
        if ended:
            return self._line(stream, at, last or state)
        self._unfinished[stream] = (at, bytearray(last), 0)
        return self._line(stream, at, state)

    def _line(self, stream: int, at: int, text: bytes, cut: int = 0) -> OutputLine:
        cut += len(text[self._longest :])
        note = f" [container-manager: {cut} bytes of this line were cut]" if cut else ""
        return OutputLine(STREAMS[stream], at, text[: self._longest].decode(errors="replace") + note)


def nanoseconds(stamp: bytes) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time stamp."""
    moment, zone, rest = stamp[:19].decode(), b"+00:00", stamp[19:]
    if not rest.endswith(b"Z"):
        rest, zone = rest[:-6], rest[-6:]
    fraction = rest.strip(b".Z").ljust(9, b"0")
    return _seconds(moment + zone.decode()) * 1_000_000_000 + int(fraction[:9])


def _seconds(moment: str, _last: dict[str, int] = {}) -> int:  # noqa: B006 - a cache: many lines have the same second
    if moment not in _last:
        _last.clear()
        _last[moment] = int(datetime.fromisoformat(moment).timestamp())
    return _last[moment]
