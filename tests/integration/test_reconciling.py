"""Executions that no job needs are removed; lost hosts, retries, and launches of unknown outcome."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Collection, Mapping
from datetime import timedelta
from functools import partial
from unittest.mock import AsyncMock

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from container_manager.aio import Slots
from container_manager.control.dispatcher import Dispatcher
from container_manager.control.job_run.run import JobRun
from container_manager.control.leader import Leader
from container_manager.control.reconciler import Reconciler
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import End
from container_manager.errors import Conflict, NotFound
from container_manager.events.job_output import StoppingError
from container_manager.executors.base import ExecutionState, ExecutionStatus, LaunchSpec, OwnedExecution
from container_manager.executors.docker.frames import nanoseconds
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorHostError,
    ExecutorOperationError,
)
from container_manager.executors.factory import ExecutorFactory
from container_manager.executors.output import Output, OutputLine
from container_manager.executors.watcher import Watcher
from container_manager.models import ContainerJob, ExecutorHost, JobAttempt, JobOutput, RoutingEvent
from container_manager.service import Service
from container_manager.store import health as health_store
from container_manager.store import jobs as job_store
from container_manager.store import leases, leftovers, outputs, threads, transitions
from container_manager.store.outputs import LogCursor, LogLine, Wanted
from container_manager.store.transaction import Actor, Fence, Worker, commit
from container_manager.store.transitions import Progress
from container_manager.store.writer import Writer, write_directly
from tests.client import Api
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.jobs import stored_lines
from tests.loops import loop_of, running_loop
from tests.stand_ins import executor_stand_in, factory_of

make_host = sync_to_async(ExecutorHostFactory)
make_job = sync_to_async(ContainerJobFactory)
ME = Actor("me")
QUICK = {"accept": "any", "launch_ms": 0, "run_ms": 1}
SLOW = {"accept": "any", "launch_ms": 0, "run_ms": 60_000}


async def claim() -> tuple[ContainerJob, Fence]:
    (claimed,) = await write_directly(leases.claim, Worker("me", "test-node", timedelta(seconds=15)))
    return claimed


# ------------------------------------------------------------------ leftovers


async def test_only_what_its_attempt_still_needs_is_needed() -> None:
    host = await make_host()
    running = await make_job(host=host, status="running", execution_id="mine", attempt=2)
    launching = await make_job(host=host, status="launching")
    ended = await make_job(host=host, status="failed", execution_id="over")
    waiting = await make_job()

    def owned(job: ContainerJob, execution_id: str, attempt: int = 1) -> OwnedExecution:
        return OwnedExecution(execution_id, job.pk, attempt, ExecutionState.EXITED)

    unknown = OwnedExecution("stranger", 987654, 1, ExecutionState.RUNNING)
    found = [
        owned(running, "mine", 2), owned(running, "late owner's", 2), owned(running, "given up", 1),
        owned(launching, "about to be committed"), owned(ended, "over"), owned(waiting, "strange"), unknown,
    ]  # fmt: skip
    assert await threads.read(leftovers.needed, found) == {"mine", "about to be committed"}


async def test_what_no_job_needs_is_removed_after_the_grace_time(service: Service) -> None:
    host = await make_host(config=SLOW)
    reconciler = Reconciler(service.process.writer, service.process.factory, Leader(Writer(), "test-node", 60), 0.3)
    executor = service.process.factory.get_executor(host)
    left = await executor.create(LaunchSpec(4711, 1, "cm-left-4711-1", "x"))
    other = await executor.create(LaunchSpec(4712, 1, "cm-left-4712-1", "x", ("sleep 0",)))
    job = await make_job(host=host, status="routed", command=["sleep 60"])
    loop_of(service, Dispatcher).wake()
    await eventually(lambda: ContainerJob.objects.filter(pk=job.pk, status="running").aexists())
    await reconciler.sweep(host)
    assert len(await executor.list_owned()) == 3, "seen for the first time"

    async def only_one_left() -> list[OwnedExecution]:
        await reconciler.sweep(host)
        owned = await executor.list_owned()
        return owned if len(owned) == 1 else []

    (kept,) = await eventually(only_one_left)
    assert kept.job_id == job.pk
    messages = [event.message async for event in RoutingEvent.objects.filter(kind="host_swept").order_by("message")]
    assert messages == [
        f"Removed {left[:12]}, left from attempt 1 of job 4711.",
        f"Removed {other[:12]}, left from attempt 1 of job 4712.",
    ]


async def test_a_host_that_comes_back_is_swept_at_once(writer: Writer) -> None:
    host = await make_host(config=SLOW, health_status=HealthStatus.UNKNOWN)
    factory = ExecutorFactory(writer.write, "x")
    leader = Leader(writer, "test-node", 60)
    reconciler = Reconciler(writer, factory, leader, 60)
    writer.on_commit(reconciler.on_events)
    swept: list[int] = []

    async def sweep(swept_host: object) -> None:
        swept.append(swept_host.pk)

    reconciler.sweep = sweep
    async with running_loop(reconciler):
        assert swept == [], "it leads nothing yet"
        async with running_loop(leader):
            await eventually(lambda: swept == [host.pk])
            await writer.write(health_store.record_reports, await factory.probe(host))
            await eventually(lambda: swept == [host.pk] * 2)
    await factory.aclose()


async def test_a_host_that_cannot_be_swept_does_not_end_the_sweeping(
    db: None, caplog: pytest.LogCaptureFixture
) -> None:
    executor = executor_stand_in()
    executor.list_owned.side_effect = [ExecutorConnectionError("silent"), RuntimeError("a bug")]
    reconciler = Reconciler(Writer(), factory_of(executor), Leader(Writer(), "test-node", 60), 60)
    host = await make_host()
    await reconciler.sweep(host)
    await reconciler.sweep(host)
    assert "a bug" in caplog.text


# ------------------------------------------------------------------ again, by hand and elsewhere


async def test_a_retry_starts_over_and_keeps_the_earlier_attempt(service: Service) -> None:
    host = await make_host(config={**QUICK, "exit_code": 4})
    job = await make_job(queue_timeout_seconds=60, max_attempts=2)
    await service.jobs.route([job.pk], ME)
    await eventually(lambda: ContainerJob.objects.filter(pk=job.pk, status="failed", attempt=2).aexists())
    again = await service.jobs.retry(job.pk, ME)
    assert (again.status, again.attempt, again.error, again.exit_code) == ("routed", 3, "", None)
    await eventually(lambda: ContainerJob.objects.filter(pk=job.pk, status="failed", attempt=3).aexists())
    rows = [(row.attempt, row.status, row.exit_code, row.host_name) async for row in JobAttempt.objects.order_by("pk")]
    assert rows == [(1, "failed", 4, host.name), (2, "failed", 4, host.name)]
    told = [event.message async for event in RoutingEvent.objects.filter(kind="job_retried").order_by("pk")]
    assert told == ["Attempt 1 of 2 ended FAILED.", "Attempt 2 ended FAILED; a retry was requested by me."]


@pytest.mark.parametrize("status", ["routed", "running", "succeeded"])
async def test_only_what_ended_without_success_is_retried(service: Service, status: str) -> None:
    job = await make_job(status=status, host=await make_host(executor_type="docker", config={"node": "elsewhere"}))
    with pytest.raises(Conflict, match=f"The job is {status.upper()}; only a job that ended without success"):
        await service.jobs.retry(job.pk, ME)


async def test_a_retry_without_room_waits_and_says_why(service: Service) -> None:
    job = await make_job(status="cancelled", cancel_requested_at=timezone.now(), queue_timeout_seconds=60)
    again = await service.jobs.retry(job.pk, ME)
    assert (again.status, again.cancel_requested_at) == ("pending", None)
    assert again.queue_deadline > timezone.now()
    with pytest.raises(NotFound):
        await service.jobs.retry(999_999, ME)


async def test_a_lost_host_gives_up_its_jobs_and_takes_no_more(service: Service) -> None:
    lost = await make_host(executor_type="docker", config={"node": "elsewhere"}, health_status=HealthStatus.UNHEALTHY)
    running = await make_job(
        host=lost, status="running", execution_id="there", lease_epoch=3, started_at=timezone.now()
    )
    routed = await make_job(host=lost, status="routed")
    cancelled = await make_job(host=lost, status="running", cancel_requested_at=timezone.now())
    host = await service.hosts.declare_lost(lost.pk, ME)
    assert (host.is_active, host.used_jobs) == (False, 0)
    for job, status, attempt in ((running, "pending", 2), (routed, "pending", 2), (cancelled, "cancelled", 1)):
        await job.arefresh_from_db()
        assert (job.status, job.attempt) == (status, attempt)
    with pytest.raises(transitions.LeaseLostError):
        await service.process.writer.write(transitions.finished, (Fence(running.pk, 3), End(JobStatus.SUCCEEDED, 0)))
    kept = await JobAttempt.objects.aget(job_id=running.pk)
    assert (kept.execution_id, kept.host_id, kept.status) == ("there", lost.pk, "failed")
    assert await RoutingEvent.objects.filter(kind="host_lost", host_id=lost.pk).aexists()
    with pytest.raises(NotFound):
        await service.hosts.declare_lost(999_999, ME)


async def test_runs_on_a_lost_host_do_not_wait_for_its_word(service: Service) -> None:
    lost = await make_host(config=SLOW)
    job = await make_job(host=lost, status="routed")
    dispatcher = loop_of(service, Dispatcher)
    dispatcher.wake()
    await eventually(lambda: ContainerJob.objects.filter(pk=job.pk, status="running").aexists())
    await make_host(config=QUICK, name="other")
    await lost.__class__.objects.filter(pk=lost.pk).aupdate(health_status=HealthStatus.UNHEALTHY)
    await service.hosts.declare_lost(lost.pk, ME)
    await eventually(lambda: ContainerJob.objects.filter(pk=job.pk, status="succeeded", attempt=2).aexists())
    await eventually(lambda: not dispatcher.running)


# ------------------------------------------------------------------ launches of unknown outcome


async def drive(
    writer: Writer, executor: AsyncMock, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> ContainerJob:
    monkeypatch.setattr("container_manager.control.job_run.run.FIRST_PAUSE", 0.01)
    executor.settle_seconds, executor.start.return_value = 0.01, ExecutionState.RUNNING
    executor.explain.side_effect = lambda _, status: status
    job = await make_job(host=await make_host(), **{"status": "routed", **changes})
    claimed, fence = await claim()
    factory = factory_of(executor)
    await asyncio.wait_for(JobRun(claimed, fence, writer, factory, Slots(1)).drive(), 10)
    await job.arefresh_from_db()
    return job


def status(state: str, **more: object) -> ExecutionStatus:
    return ExecutionStatus("id", ExecutionState(state), **more)


LAUNCHED = {"status": "launching", "lease_epoch": 1, "lease_expires_at": timezone.now() - timedelta(days=1)}
COMMITTED = {**LAUNCHED, "execution_id": "id", "launched_at": timezone.now()}


@pytest.mark.parametrize(
    ("ran", "verdict", "attempt", "why"),
    [
        (True, "failed", 1, "what became of it is unknown"),
        (None, "pending", 2, "does not know whether the container ran"),
        (False, "succeeded", 1, ""),
    ],
)
async def test_a_container_that_is_gone_runs_again_only_if_it_has_not_run(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, ran: bool | None, verdict: str, attempt: int, why: str
) -> None:
    executor = executor_stand_in()
    executor.create.return_value = "id"
    executor.status.return_value = None
    executor.has_run.return_value = ran
    executor.logs.return_value = Output()
    executor.wait.return_value = status("exited", exit_code=0, started_at=timezone.now(), finished_at=timezone.now())
    job = await drive(writer, executor, monkeypatch, **COMMITTED)
    assert (job.status, job.attempt) == (verdict, attempt)
    assert why in job.error
    assert executor.create.call_count == (ran is False)


async def test_an_end_that_the_engine_has_made_is_no_failure_of_the_job(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = status("exited", exit_code=143, started_at=timezone.now(), finished_at=timezone.now(), interrupted=True)
    executor = executor_stand_in()
    executor.status.return_value = ended
    executor.logs.return_value = Output.of([OutputLine("stdout", 1, "half")])
    job = await drive(writer, executor, monkeypatch, **COMMITTED, max_attempts=1)
    assert (job.status, job.attempt, job.infrastructure_failures) == ("pending", 2, 1)
    kept = await JobAttempt.objects.aget(job_id=job.pk)
    assert (kept.exit_code, kept.execution_id) == (143, "id")
    assert await stored_lines(job.pk) == ["half"]
    executor.remove.assert_awaited_once_with("id")
    job = await drive(writer, executor, monkeypatch, **COMMITTED, cancel_requested_at=timezone.now())
    assert job.status == "cancelled"


async def test_a_database_that_is_away_for_a_moment_loses_nothing(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_stand_in()
    executor.create.return_value = "id"
    executor.find.side_effect = [status("created")]
    executor.logs.return_value = Output()
    executor.has_run.return_value = False
    executor.wait.return_value = status("exited", exit_code=0, started_at=timezone.now(), finished_at=timezone.now())
    write, failures = writer.write, [OperationalError("server closed the connection")]

    async def cut(unit: object, item: object) -> object:
        if failures:
            raise failures.pop()
        return await write(unit, item)

    writer.write = cut
    job = await drive(writer, executor, monkeypatch)
    assert job.status == "succeeded"
    executor.start.assert_awaited_once()


# ------------------------------------------------------------------ watching


async def test_a_watcher_uses_hints_and_looks_for_what_they_missed() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    running, looks = {"a", "b", "c"}, []

    async def hints() -> AsyncGenerator[str, None]:
        yield ""
        while True:
            hint = await told.get()
            if hint == "broken":
                raise ExecutorConnectionError("the connection broke")
            yield hint

    async def look(_: object) -> dict[str, ExecutionState]:
        looks.append(set(running))
        return dict.fromkeys(running, ExecutionState.RUNNING)

    async def status(name: str) -> ExecutionStatus:
        state = ExecutionState.RUNNING if name in running and name not in ended else ExecutionState.EXITED
        return ExecutionStatus(name, state)

    ended: set[str] = set()
    watcher = Watcher(look, 60, hints)
    waits = {
        name: asyncio.create_task(watcher.wait(name, ExecutionState.RUNNING, partial(status, name))) for name in "abc"
    }
    await eventually(lambda: looks)
    ended.add("a")
    told.put_nowait("a")
    assert (await asyncio.wait_for(waits["a"], 5)).state is ExecutionState.EXITED
    assert not waits["b"].done()
    running.discard("b")
    told.put_nowait("broken")
    await asyncio.wait_for(waits["b"], 5)
    assert len(looks) == 2, "once for each time it began to listen"
    assert not waits["c"].done()
    await watcher.aclose()
    with pytest.raises(ExecutorClosedError):
        await waits["c"]


async def test_a_watcher_without_hints_looks_and_looks_less_often_at_what_does_not_answer() -> None:
    answers: list[object] = [
        {"a": ExecutionState.STARTING}, ExecutorConnectionError("silent"), RuntimeError("a bug"),
        {"a": ExecutionState.RUNNING}, {},
    ]  # fmt: skip
    looked: list[float] = []

    async def look(wanted: Collection[str]) -> Mapping[str, ExecutionState]:
        looked.append(asyncio.get_running_loop().time())
        assert set(wanted) == {"a"}
        answer = answers[len(looked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def status() -> ExecutionStatus:
        state = [ExecutionState.STARTING] * 4 + [ExecutionState.RUNNING, ExecutionState.EXITED]
        return ExecutionStatus("a", state[len(looked)])

    watcher = Watcher(look, 0.05)
    assert (await watcher.wait("a", ExecutionState.STARTING, status)).state is ExecutionState.RUNNING
    assert len(looked) == 4
    assert looked[3] - looked[2] > 0.15, "four times as long, but for the jitter"
    assert (await watcher.wait("a", ExecutionState.RUNNING, status)).state is ExecutionState.EXITED
    assert not watcher.is_watching


# ------------------------------------------------------------------ output


async def store(attempt: int, part: int, *lines: tuple[int, str], data: bytes | None = None) -> None:
    output = Output.of(OutputLine("stdout", at, text) for at, text in lines)
    await JobOutput.objects.acreate(
        job_id=7, attempt=attempt, part=part, lines=outputs.compress(output) if data is None else data
    )


async def page(after: LogCursor | None, limit: int = 99) -> list[LogLine]:
    wanted = Wanted(7, after, limit)
    return (await threads.read(outputs.pages, [wanted], 10**9))[wanted]


async def test_lines_go_on_after_any_of_them(db: None) -> None:
    await store(1, 0, (900, "pulling"))
    await store(1, 1, (5, "a"), (5, "b"), (4, "stamped earlier"), (9, "c"))
    await store(2, 1, (1, "again"))
    everything = await page(None)
    assert [line.line.text for line in everything] == ["pulling", "a", "b", "stamped earlier", "c", "again"]
    for at, line in enumerate(everything):
        assert await page(line.cursor) == everything[at + 1 :]
    assert [line.line.text for line in await page(LogCursor(1, 1, 6, 0))] == ["c", "again"]
    assert await page(LogCursor(2, 9, 0, 0)) == []


async def test_output_of_an_older_version_is_still_read(db: None) -> None:
    await store(1, 1, data=zlib.compress(b'[["stdout",7,"kept"],["stderr",8,"as JSON"]]'))
    assert await stored_lines(7) == ["kept", "as JSON"]


async def test_a_page_reads_only_the_parts_that_it_shows(db: None) -> None:
    for attempt in range(1, 6):
        # More than is unpacked at a time, with a line across two pieces.
        await store(attempt, 1, *((at, "x" * 1000 + str(at)) for at in range(200)))

    def read(wanted: Wanted) -> tuple[list[LogLine], int]:
        with CaptureQueriesContext(connection) as queries:
            return outputs.pages([wanted], 10**9)[wanted], len(queries)

    lines, queries = await threads.read(read, Wanted(7, None, 1))
    assert [line.line.at_ns for line in lines] == [0]
    assert queries == 2, "the index of the parts, and the first of them"
    lines, queries = await threads.read(read, Wanted(7, None, 201))
    assert [line.line.text[1000:] for line in lines] == [*map(str, range(200)), "0"]
    assert queries == 3


async def test_progress_is_shown_and_ends_with_the_launch(db: None) -> None:
    job = await make_job(host=await make_host(), status="routed")
    _, fence = await claim()
    notes = [OutputLine("stderr", 1, "[container-manager: Pulled.]")]
    for message in ("Pulling: 1 of 2.", "Pulling: 2 of 2."):
        await write_directly(transitions.progress, (fence, Progress(message, notes)))
    await job.arefresh_from_db()
    assert job.message == "Pulling: 2 of 2."
    await write_directly(transitions.created, (fence, "id"))
    await job.arefresh_from_db()
    assert job.message == ""
    assert await stored_lines(job.pk) == [note.text for note in notes]


async def test_followers_of_a_job_get_all_attempts_and_an_end(service: Service) -> None:
    await make_host(config={**QUICK, "launch_ms": 50})
    job = await make_job(command=["echo one; sleep 0.3; echo two; exit 5"], max_attempts=2)
    seen: list[str] = []

    async def read() -> None:
        async for line in service.jobs.follow(job.pk, None):
            seen.append(f"{line.cursor.attempt} {line.line.text}")

    reading = asyncio.create_task(read())
    await service.jobs.route([job.pk], ME)
    await asyncio.wait_for(reading, 20)
    assert seen == ["1 one", "1 two", "2 one", "2 two"]
    with pytest.raises(NotFound):
        await anext(service.jobs.follow(999_999, None))


async def test_followers_end_when_the_service_stops(service: Service) -> None:
    await make_host(config=SLOW)
    job = await make_job(command=["echo one; sleep 60; echo two"])
    await service.jobs.route([job.pk], ME)
    lines = service.jobs.follow(job.pk, None)
    assert (await anext(lines)).line.text == "one"
    waiting = asyncio.ensure_future(anext(lines, None))
    await asyncio.sleep(0)
    service.process.events.drain()
    with pytest.raises(StoppingError):
        await asyncio.wait_for(waiting, 5)


async def test_cancelling_a_job_twice_and_stopping_it_twice_keeps_the_first_reason(db: None) -> None:
    job = await make_job(host=await make_host(), status="routed")
    _, fence = await claim()
    for reason in (JobStatus.TIMED_OUT, JobStatus.CANCELLED):
        await write_directly(transitions.stopping, (fence, reason))
    await job.arefresh_from_db()
    assert job.stop_reason == "timed_out"
    await write_directly(job_store.cancel, (job.pk, ME))


# ------------------------------------------------------------------ what review found


async def test_two_writes_of_one_job_in_one_transaction_do_no_harm(db: None) -> None:
    job = await make_job(host=await make_host(), status="routed")
    _, fence = await claim()
    units = [(transitions.progress, (fence, Progress(text))) for text in ("first", "second")]
    units += [(transitions.created, (fence, "id")), (transitions.created, (fence, "id"))]
    done = await threads.write(commit, units)
    assert done.outcomes == [None] * 4
    await job.arefresh_from_db()
    assert (job.message, job.execution_id) == ("", "id")


async def test_a_container_that_is_gone_is_what_cancelled_says(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = executor_stand_in()
    executor.status.return_value = None
    asked = {"cancel_requested_at": timezone.now(), "stop_reason": "cancelled", "stopped_at": timezone.now()}
    job = await drive(writer, executor, monkeypatch, **COMMITTED, started_at=timezone.now(), **asked)
    assert (job.status, job.error) == ("cancelled", "")


async def test_output_of_a_cancelled_job_is_kept_before_its_container_goes(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = status("exited", exit_code=143, started_at=timezone.now(), finished_at=timezone.now())
    executor = executor_stand_in()
    executor.status.return_value = ended
    executor.logs.return_value = Output.of([OutputLine("stdout", 1, "so far")])
    executor.remove.side_effect = [ExecutorConnectionError("silent"), None]
    asked = {"cancel_requested_at": timezone.now(), "stop_reason": "cancelled", "stopped_at": timezone.now()}
    job = await drive(writer, executor, monkeypatch, **COMMITTED, **asked)
    assert job.status == "cancelled"
    assert await stored_lines(job.pk) == ["so far"]


async def test_a_run_ends_when_another_worker_holds_its_job(service: Service) -> None:
    job = await make_job(host=await make_host(config=SLOW), status="routed")
    dispatcher = loop_of(service, Dispatcher)
    dispatcher.wake()
    await eventually(lambda: ContainerJob.objects.filter(pk=job.pk, status="running").aexists())
    await ContainerJob.objects.filter(pk=job.pk).aupdate(lease_epoch=9, lease_owner="another")
    await eventually(lambda: not dispatcher.running, 30)


async def test_a_container_that_runs_after_its_stop_is_not_taken_for_gone(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = status("exited", exit_code=137, started_at=timezone.now(), finished_at=timezone.now())
    executor = executor_stand_in()
    executor.status.side_effect = [status("running"), status("running"), status("running"), ended]
    executor.wait = lambda *_: asyncio.Event().wait()
    executor.stop.return_value = True
    executor.logs.return_value = Output()
    job = await drive(writer, executor, monkeypatch, **COMMITTED, cancel_requested_at=timezone.now())
    assert (job.status, job.exit_code) == ("cancelled", 137)
    assert executor.stop.await_count == 2


async def test_an_end_that_came_before_our_first_signal_is_its_own(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = timezone.now() + timedelta(hours=1)
    executor = executor_stand_in()
    executor.status.side_effect = [
        status("running"), status("exited", exit_code=0, started_at=timezone.now(), finished_at=late),
    ]  # fmt: skip
    executor.wait = lambda *_: asyncio.Event().wait()
    executor.stop.return_value = False
    executor.logs.return_value = Output()
    job = await drive(writer, executor, monkeypatch, **COMMITTED, cancel_requested_at=timezone.now())
    assert job.status == "succeeded", "whatever the engine's clock says"


async def test_what_would_end_the_same_is_not_tried_again(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = executor_stand_in()
    executor.create.side_effect = ExecutorConfigurationError("image: 'x' does not exist in docker.io")
    job = await drive(writer, executor, monkeypatch, max_attempts=50)
    assert (job.status, job.attempt) == ("failed", 1)


async def test_a_host_with_wrong_settings_fails_no_job(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = executor_stand_in()
    executor.create.side_effect = ExecutorHostError("config.mounts: /srv is not there")
    job = await drive(writer, executor, monkeypatch)
    assert (job.status, job.attempt, job.answered_failures) == ("pending", 2, 1)
    assert await ExecutorHost.objects.filter(launch_failures=1).aexists(), "and counts towards its ejection"


async def test_silent_hosts_do_not_use_up_the_patience_with_others(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_stand_in()
    executor.create.side_effect = ExecutorOperationError("500 once")
    job = await drive(writer, executor, monkeypatch, infrastructure_failures=99, attempt=100)
    assert (job.status, job.answered_failures) == ("pending", 1)


async def test_one_job_retried_twice_at_once_gets_one_attempt(db: None) -> None:
    job = await make_job(status="failed")
    done = await threads.write(commit, [(job_store.retry, (job.pk, ME)), (job_store.retry, (job.pk, ME))])
    first, second = done.outcomes
    assert (first.attempt, str(second)[:18]) == (2, "The job is PENDING")


async def test_attempts_of_a_job_just_submitted_have_their_host(admin: Api) -> None:
    await make_host(config=SLOW, name="here")
    submit = """mutation { submitJob(input: {image: "x"}) { ... on ContainerJob {
        attempts { attempt status hostName host { name } decision { reason } } } } }"""
    (attempt,) = (await admin(submit))["attempts"]
    assert (attempt["hostName"], attempt["host"]["name"], attempt["status"]) == ("here", "here", "ROUTED")


@pytest.mark.parametrize(
    "stamp", [b"2026-11-22T20:00:00.5Z", b"2026-11-22T21:00:00.500000000+01:00", b"2026-11-22T15:00:00.50-05:00"]
)
def test_time_stamps_of_any_zone_are_read(stamp: bytes) -> None:
    assert nanoseconds(stamp) == 1_795_377_600_500_000_000
    assert (
        nanoseconds(stamp.replace(b".500000000", b"").replace(b".50", b"").replace(b".5", b""))
        == 1_795_377_600_000_000_000
    )
