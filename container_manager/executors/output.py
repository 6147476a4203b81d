"""What a container wrote, within a bound."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple


class OutputLine(NamedTuple):
    """One line; `at_ns` is nanoseconds since 1970."""

    stream: str
    at_ns: int
    text: str


class BoundedOutput:
    """Keeps the first and the last half of `limit` bytes and says how much of the middle it dropped."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head: list[OutputLine] = []
        self._head_size = 0
        self._tail: deque[OutputLine] = deque()
        self._tail_size = 0
        self._dropped_lines = self._dropped_at = 0
        self._dropped_bytes = 0

    def add(self, line: OutputLine) -> None:
        size = _size(line)
        if not self._tail and self._head_size + size <= self._half:
            self._head.append(line)
            self._head_size += size
            return
        self._tail.append(line)
        self._tail_size += size
        while self._tail_size > self._half and self._tail:
            dropped = self._tail.popleft()
            lost, self._dropped_at = _size(dropped), dropped.at_ns
            self._tail_size -= lost
            self._dropped_bytes += lost
            self._dropped_lines += 1

    def lines(self) -> Iterator[OutputLine]:
        yield from self._head
        if self._dropped_lines:
            yield OutputLine(
                "stderr",
                self._dropped_at,
                f"[container-manager: {self._dropped_lines} lines, {self._dropped_bytes} bytes dropped here]",
            )
        yield from self._tail


def _size(line: OutputLine) -> int:
    text = line.text
    return (len(text) if text.isascii() else len(text.encode())) + 1
