"""When a part of a process fails, it is restarted or the process is not ready; no caller waits forever."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError

from container_manager.aio import Slots, background
from container_manager.control.job_run.run import JobRun
from container_manager.control.supervisor import Supervisor
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.errors import Unavailable
from container_manager.events.log import EventLog
from container_manager.models import ContainerJob, RoutingEvent
from container_manager.observability import metrics
from container_manager.service import Service
from container_manager.store import events as event_store
from container_manager.store import leases, scheduling
from container_manager.store import writer as writer_module
from container_manager.store.transaction import Transaction
from container_manager.store.writer import Writer, write_directly
from tests.client import SUBMIT, Api
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.loops import running_loop
from tests.stand_ins import executor_stand_in, factory_of

make_host = sync_to_async(ExecutorHostFactory)
make_job = sync_to_async(ContainerJobFactory)


def tell(tx: Transaction, items: list[str]) -> list[str]:
    for message in items:
        tx.event(EventKind.HOST_UPDATED, message)
    return items


class Heavy:
    """An item with a weight."""

    def __init__(self, weight: int) -> None:
        self.weight = weight


def weigh(_: Transaction, items: list[Heavy]) -> list[int]:
    return [item.weight for item in items]


# ------------------------------------------------------------------ the writer


async def test_the_writer_goes_on_when_metrics_cannot_be_recorded(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With several workers, metrics are files: a full disk must not stop all writing."""

    def full(_: float) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics.COMMIT_ITEMS, "observe", full)
    async with asyncio.timeout(10):
        assert await writer.write(tell, "one") == "one"
        assert await writer.write(tell, "two") == "two"
    assert await RoutingEvent.objects.acount() == 2
    assert "metrics could not be recorded" in caplog.text


async def test_a_writer_that_dies_is_run_again_and_nothing_waits_forever(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.control.supervisor.RESTART_AFTER", 0.01)
    killed: list[str] = []
    commit = Writer._commit

    async def die_once(self: Writer, batch: object) -> None:
        if not killed:
            killed.append("once")
            for *_, answer in batch:
                answer.set_exception(InterfaceError("killed"))
            raise RuntimeError("a bug outside of every guard")
        await commit(self, batch)

    monkeypatch.setattr(Writer, "_commit", die_once)
    async with asyncio.timeout(10):
        with pytest.raises(InterfaceError):
            await service.process.writer.write(tell, "lost")
        assert await service.process.writer.write(tell, "after") == "after"
    assert killed


async def test_a_commit_that_stands_still_makes_the_process_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def stand_still(*_: object) -> object:
        await go_on.wait()
        raise RuntimeError("given up")

    assert await service.process.problems() == []
    monkeypatch.setattr("container_manager.store.writer.threads.write", stand_still)
    service.process.writer.patience = 0.05
    waiting = asyncio.create_task(service.process.writer.write(tell, "late"))

    async def is_stalled() -> bool:
        return "The writer loop has not ticked lately." in await service.process.problems()

    await eventually(is_stalled)
    go_on.set()
    with pytest.raises(RuntimeError, match="given up"):
        await waiting
    service.process.writer.patience = 30


async def test_too_many_waiting_changes_of_clients_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MOST_WAITING", 10)
    writer = Writer()
    writer.open()
    accepted = [asyncio.create_task(writer.write_for_client(weigh, Heavy(weight))) for weight in (4, 6)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="nothing was changed"):
        await writer.write_for_client(weigh, Heavy(1))
    # A worker's own writes are accepted: clients must not cost it its leases.
    accepted.append(asyncio.create_task(writer.write(weigh, Heavy(1))))
    await asyncio.sleep(0)
    async with running_loop(writer):
        assert await asyncio.gather(*accepted) == [4, 6, 1]
        # A single item is accepted whatever its weight, so that every request can be made.
        assert await writer.write_for_client(weigh, Heavy(11)) == 11


async def test_a_unit_that_raises_stop_iteration_is_answered(writer: Writer) -> None:
    def exhaust(_: Transaction, items: list[str]) -> list[str]:
        return [next(iter(())) for _ in items]

    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await writer.write(exhaust, "one")
        assert await writer.write(tell, "after") == "after"


async def test_a_client_gets_unavailable_when_the_service_is_overloaded(
    admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> object:
        raise Unavailable(writer_module.OVERLOADED)

    monkeypatch.setattr(Writer, "write_for_client", refuse)
    error = await admin.error(SUBMIT, input={"image": "busybox"})
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert error["message"] == writer_module.OVERLOADED


async def test_a_writer_that_is_not_open_refuses_at_once() -> None:
    writer = Writer()
    with pytest.raises(Unavailable, match="has not started"):
        await writer.write(tell, "early")
    writer.open()
    async with running_loop(writer):
        assert await writer.write(tell, "in time") == "in time"
    with pytest.raises(Unavailable, match="is stopping"):
        await writer.write(tell, "late")


async def test_a_commit_in_progress_is_answered_although_the_writer_is_stopped(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()
    write = writer_module.threads.write

    async def slow(*arguments: object) -> object:
        begun.set()
        await go_on.wait()
        return await write(*arguments)

    monkeypatch.setattr("container_manager.store.writer.threads.write", slow)
    writer = Writer()
    writer.open()
    running = asyncio.create_task(writer.run(lambda: None))
    writing = asyncio.create_task(writer.write(tell, "kept"))
    await begun.wait()
    running.cancel()
    go_on.set()
    assert await asyncio.wait_for(writing, 10) == "kept"
    assert await RoutingEvent.objects.filter(message="kept").aexists()
    await asyncio.gather(running, return_exceptions=True)
    await writer.stop()


# ------------------------------------------------------------------ the event log


@pytest.fixture
async def tail(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[EventLog, Supervisor]]:
    """A supervised event log that polls, on every database."""
    for name, seconds in (("events.log.REPAIR_SECONDS", 0.05), ("events.log.RETRY_SECONDS", 0.01)):
        monkeypatch.setattr(f"container_manager.{name}", seconds)
    monkeypatch.setattr("container_manager.control.supervisor.RESTART_AFTER", 0.01)
    log = EventLog()
    await log.open()
    supervisor = Supervisor([log])
    await supervisor.start()
    yield log, supervisor
    await supervisor.stop()


async def test_a_tail_that_dies_is_run_again(
    tail: tuple[EventLog, Supervisor], writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = tail
    following, failed = event_store.following, []

    def fail_once(*arguments: object) -> object:
        if not failed:
            failed.append(True)
            raise RuntimeError("a bug")
        return following(*arguments)

    seen: list[str] = []

    async def read() -> None:
        async for event in log.subscribe(None):
            seen.append(event.message)

    async with background(read()):
        await eventually(lambda: log.audiences)
        monkeypatch.setattr(event_store, "following", fail_once)
        await writer.write(tell, "one")
        await eventually(lambda: failed)
        await writer.write(tell, "two")
        await eventually(lambda: seen == ["one", "two"])


async def test_a_tail_that_cannot_be_read_is_stalled_until_it_can(
    tail: tuple[EventLog, Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, supervisor = tail

    def fail(*_: object) -> object:
        raise OperationalError("canceling statement due to statement timeout")

    log.patience = 3
    with monkeypatch.context() as failing:
        failing.setattr(event_store, "following", fail)
        await eventually(supervisor.stalled)
    await eventually(lambda: not supervisor.stalled())


async def test_metrics_that_cannot_be_recorded_stop_neither_subscriptions_nor_routing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for metric, method in (
        (metrics.SUBSCRIBERS, "inc"), (metrics.SUBSCRIBERS, "dec"), (metrics.DECISION_SECONDS, "observe"),
    ):  # fmt: skip
        monkeypatch.setattr(metric, method, full)
    events = service.process.events.subscribe(0)
    async with asyncio.timeout(10):
        await service.process.writer.write(tell, "one")
        assert (await anext(events)).message == "one"
        await events.aclose()
        await service.process.events.drained()
        await service.process.writer.write(scheduling.route_pending, None)


async def test_a_subscriber_whose_filter_fails_takes_no_events_from_the_others(service: Service) -> None:
    def broken(_: object) -> bool:
        raise RuntimeError("a bug")

    log = service.process.events
    waiting = [asyncio.ensure_future(anext(log.subscribe(None, wanted))) for wanted in (broken, None)]
    await eventually(lambda: log.audiences and len(log.audiences[0].subscribers) == 2)
    await service.process.writer.write(tell, "one")
    with pytest.raises(RuntimeError, match="a bug"):
        await asyncio.wait_for(waiting[0], 10)
    assert (await asyncio.wait_for(waiting[1], 10)).message == "one"


# ------------------------------------------------------------------ the supervisor


async def test_a_loop_that_answers_its_cancellation_with_an_error_is_not_run_again() -> None:
    class Stubborn:
        name, patience, runs = "stubborn", 1.0, 0

        async def run(self, beat: Callable[[], None]) -> None:
            self.runs += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise RuntimeError("cleaning up failed") from None

        async def stop(self) -> None: ...

    loop = Stubborn()
    supervisor = Supervisor([loop])
    await supervisor.start()
    await eventually(lambda: loop.runs == 1)
    await asyncio.wait_for(supervisor.stop(), 10)
    assert loop.runs == 1


# ------------------------------------------------------------------ launch slots


@pytest.fixture
async def claimed_run(writer: Writer) -> Callable:
    """Build the run of a claimed job on a stand-in executor that shares these launch slots."""

    async def build(slots: Slots, **answers: object) -> tuple[JobRun, ContainerJob]:
        from datetime import timedelta

        from container_manager.store.transaction import Worker

        job = await make_job(host=await make_host(), status="routed")
        ((claimed, fence),) = await write_directly(leases.claim, Worker("me", "test-node", timedelta(seconds=15)))
        return JobRun(claimed, fence, writer, factory_of(executor_stand_in(**answers)), slots), job

    return build


@pytest.mark.parametrize("turns", range(12))
async def test_a_run_that_is_cancelled_at_any_moment_gives_its_launch_slot_back(
    claimed_run: Callable, turns: int
) -> None:
    slots = Slots(1)
    run, _ = await claimed_run(slots)
    driving = asyncio.create_task(run.drive())
    for _ in range(turns):
        await asyncio.sleep(0)
    # The second cancellation arrives while the run cleans up after the first.
    driving.cancel()
    await asyncio.sleep(0)
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)
    assert not slots.locked()


async def test_runs_that_wait_for_a_slot_give_none_back_that_they_do_not_have(claimed_run: Callable) -> None:
    slots = Slots(1)
    held = slots.turn()
    run, job = await claimed_run(slots)
    driving = asyncio.create_task(run.drive())
    await asyncio.sleep(0.05)
    run.cancel()
    await asyncio.wait_for(driving, 10)
    await job.arefresh_from_db()
    assert job.status == JobStatus.CANCELLED
    assert slots.locked()
    slots.give_back(held)
    assert not slots.locked()


async def test_a_launch_gives_its_slot_back_when_it_has_started(claimed_run: Callable) -> None:
    slots = Slots(1)
    run, job = await claimed_run(slots)
    await asyncio.wait_for(run.drive(), 10)
    await job.arefresh_from_db()
    assert job.status == JobStatus.SUCCEEDED
    assert not slots.locked()
