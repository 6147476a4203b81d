"""The output of a container, within a bound."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

STREAMS = {ord("1"): "stdout", ord("2"): "stderr"}
_CODES = {name: chr(code) for code, name in STREAMS.items()}


class OutputLine(NamedTuple):
    """One line; `at_ns` is nanoseconds since 1970."""

    stream: str
    at_ns: int
    text: str


class Output:
    """Packed lines: each is the stream's digit, the time, a space and the text in UTF-8.

    A hundred thousand packed lines take a few megabytes, a tenth of what they would take as objects.
    """

    def __init__(self, packed: bytes = b"") -> None:
        self.packed = packed

    @classmethod
    def of(cls, lines: Iterable[OutputLine]) -> "Output":
        """Pack lines."""
        return cls(b"\n".join(map(_pack, lines)))

    def __bool__(self) -> bool:
        return bool(self.packed)

    def __iter__(self) -> Iterator[OutputLine]:
        return read_lines([self.packed])


def read_lines(chunks: Iterable[bytes]) -> Iterator[OutputLine]:
    """The lines of packed output that comes in pieces."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from map(_unpack, whole)
    if rest:
        yield _unpack(rest)


def _pack(line: OutputLine) -> bytes:
    text = line.text.replace("\n", " ").encode(errors="replace")
    return f"{_CODES[line.stream]}{line.at_ns} ".encode() + text


def _unpack(packed: bytes) -> OutputLine:
    head, _, text = packed.partition(b" ")
    return OutputLine(STREAMS[head[0]], int(head[1:]), text.decode())


class BoundedOutput:
    """Keeps the first and the last half of `limit` bytes of text, and counts what it drops in between."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head, self._head_size = bytearray(), 0
        # The bytes before `_start` are dropped.
        self._tail, self._tail_size, self._start = bytearray(), 0, 0
        self._dropped_lines = self._dropped_bytes = self._dropped_at = 0

    def add(self, line: OutputLine) -> None:
        packed = _pack(line)
        size = _size(packed)
        if not self._tail and self._head_size + size <= self._half:
            self._head += packed + b"\n"
            self._head_size += size
            return
        self._tail += packed + b"\n"
        self._tail_size += size
        while self._tail_size > self._half:
            self._drop()
        if self._start > self._half:
            del self._tail[: self._start]
            self._start = 0

    def _drop(self) -> None:
        end = self._tail.index(b"\n", self._start)
        packed = bytes(self._tail[self._start : end])
        lost = _size(packed)
        self._dropped_lines, self._dropped_bytes = self._dropped_lines + 1, self._dropped_bytes + lost
        self._dropped_at, self._tail_size, self._start = _unpack(packed).at_ns, self._tail_size - lost, end + 1

    def kept(self) -> Output:
        """The kept lines, with a line that counts the dropped ones."""
        marker = b""
        if self._dropped_lines:
            text = f"[container-manager: {self._dropped_lines} lines, {self._dropped_bytes} bytes dropped here]"
            marker = _pack(OutputLine("stderr", self._dropped_at, text)) + b"\n"
        return Output(b"".join([self._head, marker, self._tail[self._start :]]).removesuffix(b"\n"))


def _size(packed: bytes) -> int:
    """The bytes of the text, line end included."""
    return len(packed) - packed.index(b" ")
