"""The process's single writer: it commits waiting changes in one transaction, then answers each caller."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from django.db import InterfaceError

from container_manager.aio import wait_for
from container_manager.errors import Unavailable
from container_manager.observability import metrics, tracing
from container_manager.store import journal, threads
from container_manager.store.transaction import Claimed, Committed, NewEvent, Unit, Worker, commit, commit_one

logger = logging.getLogger(__name__)

LARGEST_BATCH, HEAVIEST_BATCH = 1000, 10_000
"""A transaction takes no further item beyond this number of items, or beyond this sum of their weights."""

MOST_WAITING = 50_000
"""The sum of weights that may wait for a commit; beyond it clients are refused at once. An item of any weight
is accepted while nothing waits."""

BEAT_SECONDS = 1.0
"""How often an idle writer shows that it is alive."""

OVERLOADED = (
    "More changes wait to be written than the service accepts; nothing was changed, so send the request again later."
)
STOPPED = "The service is stopping or has not started; nothing was changed."
INTERRUPTED = "the writer was stopped during a commit"

Entry = tuple[Unit, Any, "asyncio.Future[Any]"]


class Writer:
    """Group commit: a single request in an idle system is a batch of one and waits for nothing.

    It is a control loop (`control.supervisor.Loop`): the supervisor runs it again when it fails, and a commit that
    takes longer than `patience` makes the process not ready. Every item gets an answer, whatever happens to its batch.
    """

    name = "writer"
    patience = 30.0

    def __init__(self) -> None:
        self._waiting: deque[Entry] = deque()
        self._weight = 0
        self._wake = asyncio.Event()
        self._is_open = False
        self._settled = asyncio.Event()
        self._settled.set()
        self._worker: Worker | None = None
        self._on_claim: Callable[[Sequence[Claimed]], None] = lambda _: None
        self._listeners: list[Callable[[Sequence[NewEvent]], None]] = []

    def on_commit(self, listener: Callable[[Sequence[NewEvent]], None]) -> None:
        """Call `listener` with the events of each commit, on the event loop."""
        self._listeners.append(listener)

    def claim_for(self, worker: Worker | None, listener: Callable[[Sequence[Claimed]], None]) -> None:
        """Let jobs that are routed here be claimed for `worker` in the same commit, and pass them to `listener`."""
        self._worker, self._on_claim = worker, listener

    def open(self) -> None:
        """Accept changes; they are committed while `run` runs."""
        self._is_open = True

    async def write(self, unit: Unit, item: Any) -> Any:
        """Do `unit` for `item` and return its answer after the commit.

        Raises:
            Unavailable: the writer is closed; nothing was changed.
            Exception: what the unit answered for this item, or why its transaction failed.
        """
        if not self._is_open:
            raise Unavailable(STOPPED)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._weight += _weight(item)
        self._waiting.append((unit, item, answer))
        self._wake.set()
        with tracing.span(f"commit {unit.__name__}"):
            return await answer

    async def write_for_client(self, unit: Unit, item: Any) -> Any:
        """`write` for a client's request. Only these are bounded, so that client load cannot delay lease renewals.

        Raises:
            Unavailable: too many changes are waiting, or the writer is closed; nothing was changed.
            Exception: as `write`.
        """
        if self._weight and self._weight + _weight(item) > MOST_WAITING:
            raise Unavailable(OVERLOADED)
        return await self.write(unit, item)

    async def run(self, beat: Callable[[], None]) -> None:
        """Commit what is waiting, for as long as the process runs."""
        while True:
            beat()
            if self._waiting:
                await self._commit(self._batch())
            else:
                await wait_for(self._wake, BEAT_SECONDS)

    async def settled(self) -> None:
        """Wait until the commit in progress, if any, has been answered and its claims were passed on."""
        await self._settled.wait()

    async def stop(self) -> None:
        """Accept nothing more and commit what is still waiting."""
        self._is_open = False
        while self._waiting:
            await self._commit(self._batch())

    def _batch(self) -> list[Entry]:
        batch: list[Entry] = []
        weight = 0
        while self._waiting and len(batch) < LARGEST_BATCH and weight < HEAVIEST_BATCH:
            batch.append(self._waiting.popleft())
            weight += _weight(batch[-1][1])
        self._weight -= weight
        return batch

    async def _commit(self, batch: Sequence[Entry]) -> None:
        began = perf_counter()
        self._settled.clear()
        done = Committed([InterfaceError(INTERRUPTED)] * len(batch))
        try:
            # In a task of its own: a transaction that has begun is answered for, even if this loop is cancelled.
            committing = asyncio.create_task(self._transact(batch))
            try:
                done = await asyncio.shield(committing)
            except asyncio.CancelledError:
                done = await committing
                raise
        finally:
            # Those who wait for it go on after this block, when the claims were passed on.
            self._settled.set()
            for (_, _, answer), outcome in zip(batch, done.outcomes, strict=True):
                _answer(answer, outcome)
            self._tell(done)
            with metrics.never_failing():
                journal.tell(done.events)
                _count(done, perf_counter() - began)

    async def _transact(self, batch: Sequence[Entry]) -> Committed:
        try:
            return await threads.write(commit, [(unit, item) for unit, item, _ in batch], self._worker)
        except Exception as error:  # noqa: BLE001 - each caller gets it, and the writer must go on
            return Committed([error] * len(batch))

    def _tell(self, done: Committed) -> None:
        claims = [partial(self._on_claim, done.claimed)] if done.claimed else []
        for tell in (*claims, *(partial(listener, done.events) for listener in self._listeners)):
            try:
                tell()
            except Exception:
                # What is committed stays committed; a listener's error must not stop all writing.
                logger.exception("a listener to commits failed")


def _answer(answer: "asyncio.Future[Any]", outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, StopIteration):
        # A future does not accept this one.
        answer.set_exception(RuntimeError(repr(outcome)))
    elif isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _count(done: Committed, seconds: float) -> None:
    metrics.COMMIT_ITEMS.observe(len(done.outcomes))
    metrics.COMMIT_SECONDS.observe(seconds)
    for (metric, labels), times in Counter(done.counted).items():
        metric.labels(*labels).inc(times)
    for duration, executor_type, passed in done.timed:
        duration.labels(executor_type).observe(passed.total_seconds())
    for (kind, executor_type), times in Counter((str(e.kind), e.executor_type) for e in done.events).items():
        metrics.EVENTS.labels(kind, executor_type).inc(times)


def _weight(item: Any) -> int:
    """How much an item adds to its transaction; a submission weighs as much as it has jobs."""
    return getattr(item, "weight", 1)


async def write_directly(unit: Unit, item: Any) -> Any:
    """Do `unit` for `item` without a running writer, in a transaction of its own."""
    return await threads.write(commit_one, unit, item)
