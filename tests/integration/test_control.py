"""The control loops: they stay alive, take over what others left, and give it up at the end."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from unittest.mock import AsyncMock, patch

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import timezone

from container_manager.aio import Slots, wait_for
from container_manager.control.dispatcher import Dispatcher
from container_manager.control.job_run.launch import launch
from container_manager.control.job_run.run import MOST_UNEXPECTED, JobRun
from container_manager.control.leader import Leader
from container_manager.control.scheduler import STAND_IN_SECONDS, Scheduler
from container_manager.control.supervisor import Supervisor
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind
from container_manager.executors.base import ExecutionState, ExecutionStatus
from container_manager.executors.exceptions import (
    ExecutorAuthenticationError,
    ExecutorClosedError,
    ExecutorConfigurationError,
    ExecutorConnectionError,
    ExecutorOperationError,
)
from container_manager.executors.factory import ExecutorFactory
from container_manager.executors.output import Output, OutputLine
from container_manager.models import ContainerJob, JobOutput, RoutingEvent
from container_manager.service import Service, running
from container_manager.store import jobs as job_store
from container_manager.store import leases, outputs, scheduling
from container_manager.store.transaction import Actor, Fence, NewEvent, Transaction, Unit, Worker
from container_manager.store.writer import Writer, write_directly
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.jobs import stored_lines
from tests.loops import loop_of, running_loop
from tests.stand_ins import executor_stand_in, factory_of

make_host = sync_to_async(ExecutorHostFactory)
make_job = sync_to_async(ContainerJobFactory)

ALIVE = timezone.now()
LATER = ALIVE + timedelta(hours=1)


class Failing:
    """A loop that fails at its first turn."""

    name = "failing"
    patience = 60.0

    def __init__(self) -> None:
        self.turns = 0
        self.stopped = False

    async def run(self, beat: Callable[[], None]) -> None:
        beat()
        self.turns += 1
        if self.turns == 1:
            raise RuntimeError("once")
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.stopped = True


async def test_a_loop_that_fails_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("container_manager.control.supervisor.RESTART_AFTER", 0.01)
    loop = Failing()
    supervisor = Supervisor([loop])
    await supervisor.start()
    await eventually(lambda: loop.turns == 2)
    assert supervisor.stalled() == []
    loop.patience = -1
    assert supervisor.stalled() == ["failing"]
    await supervisor.stop()
    assert loop.stopped


async def status_of(job: ContainerJob) -> str:
    await job.arefresh_from_db()
    return str(job.status)


async def test_jobs_of_a_worker_that_died_are_taken_over(db: None) -> None:
    host = await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 20})
    running_ = await make_job(
        host=host,
        status="running",
        execution_id=f"sim-cm-x-{1}-1-{0}-20-0",
        started_at=timezone.now(),
        lease_owner="dead",
    )
    launching = await make_job(host=host, status="launching", lease_owner="dead")
    # SQLite serves one process, so a process that starts knows that all others are gone.
    left = timedelta(hours=1) if connection.vendor == "sqlite" else -timedelta(seconds=1)
    for job in (running_, launching):
        await ContainerJob.objects.filter(pk=job.pk).aupdate(lease_expires_at=timezone.now() + left)
    async with running():
        for job in (running_, launching):
            await eventually(lambda job=job: _is(job, "succeeded"))


async def _is(job: ContainerJob, status: str) -> bool:
    return await status_of(job) == status


async def test_a_stopping_service_gives_up_its_leases(db: None) -> None:
    host = await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 60_000})
    job = await make_job(host=host, status="routed")
    async with running():
        await eventually(lambda: _is(job, "running"))
    await job.arefresh_from_db()
    assert job.status == "running"
    assert job.lease_expires_at < timezone.now()


async def test_hosts_are_probed_all_the_time(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    host = await make_host(health_status=HealthStatus.UNKNOWN)

    async def is_known() -> bool:
        await host.arefresh_from_db()
        return host.health_status == HealthStatus.HEALTHY and host.last_health_check is not None

    async with running():
        await eventually(is_known)


async def test_a_host_that_is_not_probed_becomes_unknown(db: None) -> None:
    forgotten = await make_host(
        executor_type="docker", config={"node": "gone"}, last_health_check=timezone.now() - timedelta(minutes=5)
    )

    async def is_unknown() -> bool:
        await forgotten.arefresh_from_db()
        return forgotten.health_status == HealthStatus.UNKNOWN

    async with running():
        await eventually(is_unknown)
    event = await RoutingEvent.objects.aget(host_id=forgotten.pk)
    assert event.message.startswith("healthy to unknown. No worker of node gone has probed it lately; start one")
    assert forgotten.health_error in event.message


async def test_a_job_in_its_back_off_starts_when_that_ends(service: Service) -> None:
    await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 1})
    job = await make_job(not_before=timezone.now() + timedelta(seconds=0.5))
    # The event wakes the scheduler, which then computes when to wake by itself.
    loop_of(service, Scheduler).on_events([NewEvent(EventKind.JOB_RETRIED, "", job.pk)])
    await eventually(lambda: _is(job, "succeeded"), 10)


@contextmanager
def answered(writer: Writer) -> Iterator[Counter[str]]:
    """How often each unit was written and answered in the block."""
    found: Counter[str] = Counter()
    write = writer.write

    async def counting(unit: Unit, item: object) -> object:
        answer = await write(unit, item)
        found[unit.__name__] += 1
        return answer

    with patch.object(writer, "write", counting):
        yield found


async def test_jobs_that_never_wait_take_no_queue_pass_and_no_second_claim(writer: Writer) -> None:
    await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 1})
    scheduler = Scheduler(writer, Leader(writer, "test-node", 3600))
    dispatcher = Dispatcher(writer, ExecutorFactory(writer.write, "x"), "test-node", 3600)
    for loop in (scheduler, dispatcher):
        writer.on_commit(loop.on_events)
    with answered(writer) as written:
        async with running_loop(scheduler), running_loop(dispatcher):
            # Those of the start.
            await eventually(lambda: written["route_pending"] and written["claim"])
            for _ in range(5):
                (job,) = await writer.write(job_store.submit, job_store.Submission([ContainerJobFactory.build()]))
                await eventually(lambda job=job: _is(job, "succeeded"))
    assert written["finished"] == 5
    assert (written["route_pending"], written["claim"]) == (1, 1)


async def test_an_event_that_comes_before_its_commits_answer_takes_no_second_claim(writer: Writer) -> None:
    host = await make_host(config={"run_ms": 60_000})
    first = await make_job(host=host, status="routed")
    job = await make_job(host=host, status="launching", lease_epoch=1, lease_expires_at=LATER)
    dispatcher = Dispatcher(writer, ExecutorFactory(writer.write, "x"), "test-node", 3600)
    begun, release = threading.Event(), threading.Event()

    def claiming(tx: Transaction, items: Sequence[None]) -> list[None]:
        tx.claimed.append((ContainerJob.objects.select_related("host").get(pk=job.pk), Fence(job.pk, 1)))
        begun.set()
        release.wait(20)
        return [None] * len(items)

    with answered(writer) as written:
        async with running_loop(dispatcher):
            # Claims go on at once as long as they find jobs.
            await eventually(lambda: _is(first, "running"))
            committing = asyncio.create_task(writer.write(claiming, None))
            await asyncio.to_thread(begun.wait, 20)
            dispatcher.on_events([NewEvent(EventKind.JOB_ROUTED, "", job.pk, attempt=1)])
            release.set()
            await committing
            await eventually(lambda: not dispatcher._routed)
            await eventually(lambda: _is(job, "running"))
    assert written["claim"] == 1


async def test_expired_leases_are_claimed_however_often_it_is_woken(writer: Writer) -> None:
    host = await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 60_000})
    dispatcher = Dispatcher(writer, ExecutorFactory(writer.write, "x"), "test-node", 0.4)
    with answered(writer) as written:
        async with running_loop(dispatcher):
            await eventually(lambda: written["claim"])
            job = await make_job(host=host, status="launching", lease_owner="dead", lease_expires_at=ALIVE)
            async with asyncio.timeout(20):
                while not await _is(job, "running"):
                    dispatcher.on_events([NewEvent(EventKind.JOB_CANCEL_REQUESTED, "", job.pk + 1)])


@pytest.mark.parametrize("leads", [True, False])
async def test_one_process_routes_at_once_and_the_others_when_it_may_have_died(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    mine, other = Leader(writer, "test-node", 3600), Leader(writer, "other-node", 3600)
    scheduler = Scheduler(writer, mine)
    stood_by: list[float] = []

    async def waiting(event: asyncio.Event, seconds: float) -> bool:
        if event is scheduler._elected:
            stood_by.append(seconds)
            return False
        return await wait_for(event, seconds)

    monkeypatch.setattr("container_manager.control.scheduler.wait_for", waiting)
    await make_host()
    with answered(writer) as written:
        async with running_loop(mine if leads else other), running_loop(scheduler):
            await eventually(lambda: written["campaign"] and written["route_pending"])
            job = await make_job()
            scheduler.on_events([NewEvent(EventKind.JOB_RETRIED, "", job.pk)])
            await eventually(lambda: _is(job, "routed"))
    assert stood_by == ([] if leads else [STAND_IN_SECONDS])


# ------------------------------------------------------------------ the run of one job, on a stand-in executor


@pytest.fixture
async def run(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Drive a job, taken over by us or fresh, on a stand-in executor."""
    monkeypatch.setattr("container_manager.control.job_run.run.FIRST_PAUSE", 0.01)

    async def drive(executor: AsyncMock, **changes: object) -> ContainerJob:
        values = {"status": "routed", **changes}
        job = await make_job(host=await make_host(), **values)
        ((claimed, fence),) = await write_directly(leases.claim, Worker("me", "test-node", timedelta(seconds=15)))
        factory = factory_of(executor)
        driving = asyncio.create_task(JobRun(claimed, fence, writer, factory, Slots(1)).drive())
        await asyncio.wait_for(driving, 10)
        await job.arefresh_from_db()
        return job

    return drive


def engine(**answers: object) -> AsyncMock:
    """An executor with these answers; by default the launch succeeds."""
    return executor_stand_in(at=ALIVE, **answers)


def state(kind: str, exit_code: int | None = None) -> ExecutionStatus:
    return ExecutionStatus("found", ExecutionState(kind), exit_code, ALIVE, ALIVE if exit_code is not None else None)


TAKEN_OVER = {"status": "launching", "lease_epoch": 1, "lease_expires_at": ALIVE - timedelta(days=1)}


async def kinds() -> list[str]:
    return [event.kind async for event in RoutingEvent.objects.order_by("pk")]


async def test_a_fresh_job_is_created_committed_started_and_removed(run: Callable) -> None:
    executor = engine()
    job = await run(executor)
    assert (job.status, job.exit_code, job.execution_id) == ("succeeded", 0, "id")
    assert await kinds() == ["job_launched", "job_started", "job_finished"]
    called = [call[0] for call in executor.method_calls]
    assert called == ["prepare", "create", "start", "wait", "explain", "logs", "remove"]


async def test_a_container_that_runs_is_adopted_not_started_again(run: Callable) -> None:
    executor = engine(status=state("running"))
    job = await run(executor, **TAKEN_OVER, execution_id="found", submitted_at=ALIVE)
    assert (job.status, job.execution_id, job.started_at) == ("succeeded", "found", ALIVE)
    executor.create.assert_not_called()
    executor.start.assert_not_called()
    assert await kinds() == ["job_started", "job_finished"]


@pytest.mark.parametrize("found", [state("running"), state("exited", 0)])
async def test_what_runs_without_a_committed_id_is_not_the_jobs(run: Callable, found: ExecutionStatus) -> None:
    executor = engine(find=found)
    job = await run(executor, **TAKEN_OVER)
    assert (job.status, job.execution_id) == ("succeeded", "id")
    executor.create.assert_called_once()
    executor.remove.assert_awaited_once_with("id")


async def test_a_container_that_has_ended_is_harvested(run: Callable) -> None:
    executor = engine(status=state("exited", 3))
    job = await run(executor, **TAKEN_OVER, execution_id="found")
    assert (job.status, job.exit_code) == ("failed", 3)
    executor.start.assert_not_called()
    executor.wait.assert_not_called()
    assert await kinds() == ["job_started", "job_finished"]


async def test_a_container_that_never_started_is_removed_and_created_again(run: Callable) -> None:
    executor = engine(find=state("created"))
    job = await run(executor, **TAKEN_OVER)
    assert (job.status, job.execution_id) == ("succeeded", "id")
    assert [call.args[0] for call in executor.remove.call_args_list] == ["found", "id"]


async def test_a_container_that_vanished_is_not_run_again(run: Callable) -> None:
    executor = engine(status=None)
    job = await run(executor, **TAKEN_OVER | {"status": "running"}, execution_id="gone", started_at=ALIVE)
    assert job.status == "failed"
    assert "what became of it is unknown" in job.error
    executor.create.assert_not_called()


async def test_a_start_without_an_answer_is_looked_up_before_anything_else(run: Callable) -> None:
    executor = engine(
        start=ExecutorConnectionError("no answer"), status=[ExecutorConnectionError("still none"), state("running")]
    )
    job = await run(executor)
    assert job.status == "succeeded"
    executor.create.assert_called_once()
    executor.start.assert_called_once()
    assert await kinds() == ["job_launched", "job_started", "job_finished"]


async def test_a_start_that_never_happened_is_made_good(run: Callable) -> None:
    executor = engine(start=[ExecutorConnectionError("no answer"), ExecutionState.RUNNING], status=state("created"))
    job = await run(executor)
    assert job.status == "succeeded"
    assert executor.create.call_count == 2
    assert await kinds() == ["job_launched", "job_started", "job_finished"]


async def test_a_start_that_the_engine_refuses_frees_the_name_and_is_tried_elsewhere(run: Callable) -> None:
    executor = engine(start=ExecutorOperationError("no such device"), status=state("created"))
    job = await run(executor)
    assert (job.status, job.attempt, job.execution_id, job.error) == ("pending", 2, "", "no such device")
    executor.remove.assert_awaited_once_with("id")
    assert await kinds() == ["job_launched", "job_retried"]
    again = await run(executor, answered_failures=2)
    assert (again.status, again.error) == ("failed", "no such device")


async def test_a_start_that_can_never_work_fails_the_job_and_leaves_nothing(run: Callable) -> None:
    executor = engine(start=ExecutorConfigurationError("no such program"), status=state("created"))
    job = await run(executor)
    assert (job.status, job.error) == ("failed", "no such program")
    executor.remove.assert_awaited_once_with("id")


async def test_a_host_whose_settings_were_broken_does_not_fail_what_runs_on_it(run: Callable) -> None:
    executor = engine(status=[ExecutorConfigurationError("config.url"), state("running")])
    job = await run(executor, **TAKEN_OVER | {"status": "running"}, execution_id="found", started_at=ALIVE)
    assert job.status == "succeeded"


async def test_a_start_that_was_refused_but_happened_is_watched(run: Callable) -> None:
    job = await run(engine(start=ExecutorOperationError("timed out inside"), status=state("running")))
    assert job.status == "succeeded"


async def test_output_that_cannot_be_read_does_not_hold_up_the_verdict(run: Callable) -> None:
    executor = engine()
    executor.logs.side_effect = ExecutorOperationError("configured logging driver does not support reading")
    job = await run(executor)
    assert job.status == "succeeded"
    assert "does not support reading" in (await stored_lines(job.pk))[0]


@pytest.mark.parametrize(
    ("changes", "exit_code", "verdict"),
    [
        ({"stop_reason": "cancelled", "stopped_at": LATER}, 143, "cancelled"),
        ({"stop_reason": "cancelled", "stopped_at": LATER}, 3, "failed"),
        ({"stop_reason": "cancelled", "stopped_at": ALIVE}, 0, "cancelled"),
        ({"stop_reason": "timed_out", "stopped_at": LATER, "timeout_seconds": 1}, 137, "timed_out"),
        ({"timeout_seconds": 1}, 3, "failed"),
        ({"timeout_seconds": 1}, 137, "failed"),
        ({"timeout_seconds": 3600}, 137, "failed"),
    ],
)
async def test_what_a_dead_worker_stopped_gets_its_true_verdict(
    run: Callable, changes: dict, exit_code: int, verdict: str
) -> None:
    ended = ExecutionStatus("found", ExecutionState.EXITED, exit_code, ALIVE, ALIVE + timedelta(seconds=5))
    job = await run(engine(status=ended), **TAKEN_OVER, execution_id="found", **changes)
    assert (job.status, job.exit_code) == (verdict, exit_code)


async def test_a_connection_that_breaks_while_waiting_is_taken_up_again(run: Callable) -> None:
    ended = state("exited", 0)
    executor = engine(wait=[ExecutorConnectionError("broken"), ended], status=state("running"))
    job = await run(executor)
    assert job.status == "succeeded"
    executor.start.assert_called_once()


@pytest.mark.parametrize("fault", [ExecutorConnectionError("down"), ExecutorOperationError("disk full")])
async def test_a_host_that_cannot_create_gives_the_job_back(run: Callable, fault: Exception) -> None:
    job = await run(engine(create=fault))
    assert (job.status, job.attempt, job.error, job.host_id) == ("pending", 2, str(fault), None)
    assert await kinds() == ["job_retried"]


async def test_refused_credentials_fail_the_job(run: Callable) -> None:
    job = await run(engine(create=ExecutorAuthenticationError("image: registry r.io refused")))
    assert (job.status, job.error) == ("failed", "image: registry r.io refused")


async def test_a_job_cancelled_before_its_launch_never_gets_a_container(run: Callable) -> None:
    executor = engine()
    job = await run(executor, cancel_requested_at=ALIVE)
    assert job.status == "cancelled"
    executor.create.assert_not_called()


@pytest.mark.parametrize(("had_to_stop", "verdict"), [(False, "succeeded"), (True, "cancelled")])
async def test_only_an_end_of_its_own_outranks_our_cancel(run: Callable, had_to_stop: bool, verdict: str) -> None:
    """A program may exit with 0 when it gets TERM; this service has ended it nevertheless."""
    executor = engine(status=[state("running"), state("exited", 0)])
    executor.wait, executor.stop.return_value = lambda *_: asyncio.Event().wait(), had_to_stop
    job = await run(executor, **TAKEN_OVER, execution_id="found", cancel_requested_at=ALIVE)
    assert (job.status, job.exit_code) == (verdict, 0)


async def test_a_stop_without_an_answer_is_remembered(run: Callable) -> None:
    executor = engine(status=[state("running"), state("exited", 143)], stop=ExecutorConnectionError("no answer"))
    executor.wait = lambda *_: asyncio.Event().wait()
    job = await run(executor, **TAKEN_OVER, execution_id="found", timeout_seconds=1)
    assert (job.status, job.exit_code) == ("timed_out", 143)


async def test_a_start_that_takes_effect_late_is_adopted(run: Callable) -> None:
    executor = engine(status=[state("created"), state("running")])
    job = await run(executor, **TAKEN_OVER, execution_id="found")
    assert (job.status, job.execution_id) == ("succeeded", "found")
    executor.remove.assert_awaited_once_with("found")
    executor.create.assert_not_called()


async def test_a_cancel_does_not_wait_for_a_pull(run: Callable) -> None:
    executor = engine(find=state("created"))

    async def pull(*_: object) -> str:
        await ContainerJob.objects.aupdate(cancel_requested_at=ALIVE)
        cancel()
        await asyncio.Event().wait()
        raise AssertionError

    def cancel() -> None:
        (task,) = [task for task in asyncio.all_tasks() if "JobRun.drive" in str(task.get_coro())]
        task.get_coro().cr_frame.f_locals["self"].cancel()

    executor.create = pull
    job = await run(executor)
    assert job.status == "cancelled"
    executor.remove.assert_awaited_once_with("found")


async def test_a_removal_without_an_answer_keeps_the_job_where_it_is(run: Callable) -> None:
    """Its start was sent before: until the host says otherwise, it may be running there."""
    executor = engine(status=[state("created"), state("created"), state("running")])
    executor.remove.side_effect = [ExecutorConnectionError("silent"), None]
    job = await run(executor, **TAKEN_OVER, execution_id="found", launched_at=ALIVE)
    assert (job.status, job.attempt, job.execution_id) == ("succeeded", 1, "found")
    executor.create.assert_not_called()


async def test_adopting_and_cancelling_do_not_wait_behind_launches(writer: Writer) -> None:
    host = await make_host()
    job = await make_job(host=host, status="routed")
    ((claimed, fence),) = await write_directly(leases.claim, Worker("me", "test-node", timedelta(seconds=15)))
    factory = factory_of(engine())
    taken = Slots(0)
    waiting = JobRun(claimed, fence, writer, factory, taken)
    driving = asyncio.create_task(waiting.drive())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait_for(driving, 5)
    assert await status_of(job) == "cancelled"


async def test_a_call_on_a_replaced_executor_is_repeated_on_the_new_one(run: Callable) -> None:
    executor = engine(create=[ExecutorClosedError("its settings were changed"), "id"])
    job = await run(executor)
    assert (job.status, job.attempt) == ("succeeded", 1)


async def test_more_jobs_than_one_claim_takes_are_claimed_at_once(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.store.leases.CLAIM_AT_ONCE", 2)
    host = await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 60_000})
    for _ in range(7):
        await make_job(host=host, status="routed")
    dispatcher = Dispatcher(writer, ExecutorFactory(writer.write, "x"), "test-node", 3600)
    writer.on_commit(dispatcher.on_events)
    async with running_loop(dispatcher):
        await eventually(lambda: len(dispatcher.running) == 7)


async def test_the_next_attempt_does_not_cut_off_the_clearing_away_of_the_last(writer: Writer) -> None:
    host = await make_host()
    await make_job(host=host, status="routed", max_attempts=2)
    cleared, release = [], asyncio.Event()

    async def remove(execution_id: str) -> None:
        await release.wait()
        cleared.append(execution_id)

    executor = engine(create=["first", "second"], wait=[state("exited", 1), state("exited", 0)])
    executor.remove = remove
    factory = factory_of(executor)
    dispatcher = Dispatcher(writer, factory, "test-node", 15)
    writer.on_commit(dispatcher.on_events)
    async with running_loop(dispatcher):
        await eventually(lambda: ContainerJob.objects.filter(status="pending", attempt=2).aexists())
        await ContainerJob.objects.aupdate(not_before=None)
        await write_directly(scheduling.route_pending, None)
        dispatcher.wake()
        await eventually(lambda: ContainerJob.objects.filter(status="succeeded").aexists())
        release.set()
        await eventually(lambda: sorted(cleared) == ["first", "second"])


async def test_output_that_never_comes_to_an_end_does_not_hold_the_job(run: Callable) -> None:
    executor = engine(status=state("exited", 0))
    executor.logs.side_effect = ExecutorConnectionError("no answer")
    job = await run(executor, **TAKEN_OVER, execution_id="found")
    assert job.status == "succeeded"
    assert executor.logs.await_count == 5


async def test_a_container_that_cannot_be_removed_does_not_change_the_verdict(run: Callable) -> None:
    job = await run(engine(remove=ExecutorOperationError("busy")))
    assert job.status == "succeeded"


async def test_a_run_taken_over_by_another_stops(run: Callable) -> None:
    async def lose(*_: object) -> str:
        await ContainerJob.objects.aupdate(lease_epoch=99)
        return "id"

    executor = engine()
    executor.create = lose
    job = await run(executor)
    assert job.status == "launching"
    executor.start.assert_not_called()


async def test_a_run_that_fails_is_logged_and_taken_up_when_its_lease_ends(writer: Writer, caplog) -> None:
    host = await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 1})
    factory = ExecutorFactory(writer.write, "x")
    dispatcher = Dispatcher(writer, factory, "test-node", 0.3)
    writer.on_commit(dispatcher.on_events)
    job = await make_job(host=host, status="routed")
    broken = []

    async def break_once(*arguments: object) -> ExecutionStatus | None:
        if not broken:
            broken.append(arguments)
            raise RuntimeError("a bug")
        return await launch(*arguments)

    with patch("container_manager.control.job_run.run.launch", break_once):
        async with running_loop(dispatcher):
            await eventually(lambda: _is(job, "succeeded"))
    assert f"job {job.pk}: the run failed unexpectedly" in caplog.text


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_run_that_fails_again_and_again_ends_with_an_incident(
    run: Callable, cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    executor = engine(wait=RuntimeError("a bug"), status=state("running"))
    if cancelled:
        executor.stop.side_effect = [RuntimeError("a bug in stop")] * MOST_UNEXPECTED + [True]
        job = await run(executor, max_attempts=3, cancel_requested_at=ALIVE, execution_id="id", **TAKEN_OVER)
        assert job.status == "cancelled"
        executor.remove.assert_awaited()
        return
    executor.stop.side_effect = RuntimeError("a bug in stop")
    job = await run(executor, max_attempts=3)
    assert (job.status, job.attempt) == ("failed", 1)
    incident = re.fullmatch(r"The service failed to run it; its log has the cause as incident (\w{8})\.", job.error)[1]
    assert f"incident {incident}: job {job.pk} is given up" in caplog.text
    assert "a bug" in caplog.text
    executor.stop.assert_awaited()


SOME = OutputLine("stdout", 1, "some of it")


async def test_output_that_was_stored_before_the_end_does_not_keep_it_from_being_committed(run: Callable) -> None:
    executor = engine(logs=Output.of([SOME._replace(text="all of it")]), status=state("exited", 3))
    number = (await make_job()).pk + 1
    await JobOutput.objects.acreate(job_id=number, attempt=1, lines=outputs.compress(Output.of([SOME])))
    job = await run(executor, **TAKEN_OVER, execution_id="found")
    assert (job.pk, job.status, job.exit_code) == (number, "failed", 3)
    assert await stored_lines(number) == ["all of it"]


async def test_an_end_that_cannot_be_explained_is_an_end_nevertheless(run: Callable) -> None:
    for trouble in (ExecutorOperationError("403"), KeyError("Actor")):
        executor = engine(status=state("exited", 3))
        executor.explain.side_effect = trouble
        job = await run(executor, **TAKEN_OVER, execution_id="found")
        assert (job.status, job.exit_code, job.attempt) == ("failed", 3, 1)


async def test_leases_are_renewed_however_busy_it_is(writer: Writer) -> None:
    host = await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 1500})
    dispatcher = Dispatcher(writer, ExecutorFactory(writer.write, "x"), "test-node", 0.3)
    writer.on_commit(dispatcher.on_events)
    job = await make_job(host=host, status="routed")
    async with running_loop(dispatcher):
        while not await _is(job, "succeeded"):
            dispatcher.wake()
            await asyncio.sleep(0.02)
        assert job.lease_epoch == 1


async def test_a_cancel_in_the_same_commit_as_the_claim_takes_effect(writer: Writer) -> None:
    host = await make_host(config={"accept": "any", "launch_ms": 0, "run_ms": 60_000})
    dispatcher = Dispatcher(writer, ExecutorFactory(writer.write, "x"), "test-node", 15)
    writer.on_commit(dispatcher.on_events)
    job = await make_job(host=host, status="routed")
    # The listeners get the commit of both before the claim's answer is used.
    claiming = asyncio.create_task(writer.write(leases.claim, dispatcher.worker))
    cancelling = asyncio.create_task(writer.write(job_store.cancel, (job.pk, None)))
    claimed = await claiming
    await cancelling
    dispatcher.start_runs(claimed)
    async with running_loop(dispatcher):
        await eventually(lambda: _is(job, "cancelled"))


async def test_changing_a_host_disturbs_nothing_that_runs_there(service: Service) -> None:
    values = {"name": "sim", "executor_type": "simulated", "config": {"accept": "any", "launch_ms": 0, "run_ms": 400}}
    host = await service.hosts.create(values, Actor("test"))
    job = await make_job(host=host, status="routed")
    loop_of(service, Dispatcher).wake()
    await eventually(lambda: _is(job, "running"))
    await service.hosts.update(host.pk, {"routing_weight": 5, "max_concurrent_jobs": 3}, Actor("test"))
    await service.hosts.update(host.pk, {"config": {**values["config"], "run_ms": 1}}, Actor("test"))
    await eventually(lambda: _is(job, "succeeded"))
    assert (job.attempt, job.lease_epoch) == (1, 1)
