"""The process's one writer: takes what is waiting, commits it in one transaction, answers each caller after."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from container_manager import metrics, tracing
from container_manager.store import threads
from container_manager.store.transaction import Claimed, Committed, Fact, Unit, Worker, commit

logger = logging.getLogger(__name__)

LARGEST_BATCH, HEAVIEST_BATCH = 1000, 10_000
"""When a transaction takes no further entry: by their number, and by their weight; an item may have one above 1."""

Entry = tuple[Unit, Any, asyncio.Future[Any]]


class Writer:
    """Group commit. An idle system's single request is a batch of one and waits for nobody."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Entry] = asyncio.Queue()
        self._worker: Worker | None = None
        self._claims: Callable[[Sequence[Claimed]], None] = lambda _: None
        self._listeners: list[Callable[[Sequence[Fact]], None]] = []
        self._task: asyncio.Task[None] | None = None

    def on_commit(self, listener: Callable[[Sequence[Fact]], None]) -> None:
        """Call `listener` with the events of each commit, on the event loop."""
        self._listeners.append(listener)

    def claim_for(self, worker: Worker | None, listener: Callable[[Sequence[Claimed]], None]) -> None:
        """Have jobs that are routed here claimed for this worker in the same commit, and give them to `listener`."""
        self._worker, self._claims = worker, listener

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="writer")

    async def stop(self) -> None:
        """Commit what is waiting, then stop."""
        await self._waiting.join()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def write(self, unit: Unit, item: Any) -> Any:
        """Do `unit` for `item`; returns after the commit. Raises what the unit answered for this item."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((unit, item, answer))
        with tracing.span(f"commit {unit.__name__}"):
            return await answer

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            weight = _weight(batch[0])
            while len(batch) < LARGEST_BATCH and weight < HEAVIEST_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
                weight += _weight(batch[-1])
            try:
                await self._commit(batch)
            finally:
                for _ in batch:
                    self._waiting.task_done()

    async def _commit(self, batch: list[Entry]) -> None:
        metrics.COMMIT_ITEMS.observe(len(batch))
        try:
            with metrics.COMMIT_SECONDS.time():
                done = await threads.write(commit, [(unit, item) for unit, item, _ in batch], self._worker)
        except Exception as error:  # noqa: BLE001 - the callers are told; the writer must go on
            done = Committed([error] * len(batch))
        for (_, _, answer), outcome in zip(batch, done.outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        _count(done)
        tell = [partial(listener, done.events) for listener in self._listeners]
        for telling in [partial(self._claims, done.claimed), *tell] if done.claimed else tell:
            try:
                telling()
            except Exception:
                # What is committed is committed; a listener's fault must not stop all writing.
                logger.exception("telling of a commit")


def _count(done: Committed) -> None:
    for (metric, labels), times in Counter(done.counted).items():
        metric.labels(*labels).inc(times)
    for (kind, executor_type), times in Counter((str(e.kind), e.executor_type) for e in done.events).items():
        metrics.EVENTS.labels(kind, executor_type).inc(times)


def _weight(entry: Entry) -> int:
    return getattr(entry[1], "weight", 1)


async def write_directly(unit: Unit, item: Any) -> Any:
    """The same without a running writer, in a transaction of its own: for the CLI and for callers of the factory."""
    (outcome,) = (await threads.write(commit, [(unit, item)])).outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
