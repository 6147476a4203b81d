"""What is known of the operation that a task runs, and how much text and how many records it may still read."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from graphql import GraphQLError

from container_manager.observability import metrics
from graphql_api.limits import MAX_BATCH_VALUES

LARGEST_ANSWER = 8_388_608
"""Characters of commands, labels, configs and output in one answer."""

LARGEST_TOGETHER = 4 * LARGEST_ANSWER
"""The same in all answers of the process that are being made or sent."""

SMALL = 16_384
"""An answer with fewer characters is never refused for the sake of others."""

MOST_RECORDS = 5000
"""Attempts and decisions of jobs in one answer: their number is known only when they are read."""

TEXT = "characters of text"


def too_much(most: int, what: str) -> GraphQLError:
    """The error of an operation whose answer would be too large."""
    return GraphQLError(
        f"The answer would have more than {most} {what}; ask for fewer at a time.",
        extensions={"code": "BAD_USER_INPUT"},
    )


@dataclass(slots=True)
class Operation:
    """One operation in progress."""

    query: str = ""
    cost: float = 0.0
    values: int = 0
    """JSON values in its variables."""
    most_values: int = MAX_BATCH_VALUES
    """How many its client may send, in a batch of jobs."""
    characters: int = 0
    read: int = 0
    records: int = 0
    counted: int = 0
    """Its characters in the total of the process."""

    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while long texts are read, so that it is known what they take before the next ones are read."""
    _mentions: dict[Sequence[str], int] = field(default_factory=dict)

    def mentions(self, names: Sequence[str]) -> int:
        """How often its document has the most frequent of these names: it shows one of them at most so often."""
        if not self.query:
            # It came past the transports.
            return 1
        if (found := self._mentions.get(names)) is None:
            found = self._mentions[names] = max(map(self.query.count, names))
        return found

    def spend(self, *, characters: int = 0, read: int = 0, records: int = 0) -> None:
        """Count the characters that the answer shows, those that were read for it, and its attempts and decisions.

        Raises:
            GraphQLError: BAD_USER_INPUT, it is more than an answer may have; UNAVAILABLE, the answers of the process
                have more together than they may.
        """
        self.characters += characters
        self.read += read
        self.records += records
        for found, most, what in (
            (max(self.characters, self.read), LARGEST_ANSWER, TEXT),
            (self.records, MOST_RECORDS, "attempts and decisions"),
        ):
            if found > most:
                raise too_much(most, what)
        if self.characters > SMALL:
            self._check_total()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is spent in the block is given back if it raises."""
        before = self.characters, self.read, self.records
        try:
            yield
        except Exception:
            self.characters, self.read, self.records = before
            raise

    def _check_total(self) -> None:
        new, self.counted = self.characters - self.counted, self.characters
        if _total.add(new) + _total.unsent() > LARGEST_TOGETHER:
            raise GraphQLError(
                "The server is sending as much text to its clients as it can; try again later.",
                extensions={"code": "UNAVAILABLE"},
            )


class _Total:
    """The characters of all answers in progress."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._characters = 0
        self.unsent: Callable[[], int] = lambda: 0
        """The bytes that wait for clients to read them."""

    def add(self, characters: int) -> int:
        with self._lock:
            self._characters += characters
            return self._characters


_total = _Total()
_current: ContextVar[Operation | None] = ContextVar("operation", default=None)


def count_unsent_with(unsent: Callable[[], int]) -> None:
    """Set what counts the bytes that wait for clients to read them."""
    _total.unsent = unsent


def current() -> Operation:
    """The operation of this task; a new one when none has begun."""
    return _current.get() or Operation()


@contextmanager
def begun(query: str = "") -> Iterator[Operation]:
    """An operation of this task, until its answer was sent."""
    operation = Operation(query)
    before = _current.set(operation)
    with metrics.never_failing():
        metrics.OPERATIONS.inc()
    try:
        yield operation
    finally:
        _current.reset(before)
        if operation.counted:
            _total.add(-operation.counted)
