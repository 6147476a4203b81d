"""The writer, the event log, claims and their fences."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import DataError, IntegrityError, OperationalError, connection
from django.db import transaction as database
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind
from container_manager.domain.lifecycle import JobStatus
from container_manager.domain.outcome import End, HostFault
from container_manager.errors import Conflict
from container_manager.events.audience import QUEUE_LIMIT
from container_manager.events.log import EventLog
from container_manager.executors.output import Output, OutputLine
from container_manager.models import ApiToken, ContainerJob, ExecutorHost, JobOutput, RoutingEvent, class_key
from container_manager.routing.types import JobRequirements
from container_manager.store import health as health_store
from container_manager.store import (
    hosts,
    leadership,
    leases,
    outputs,
    pending,
    threads,
    transaction,
    transitions,
)
from container_manager.store import jobs as job_store
from container_manager.store.fleet import states
from container_manager.store.health import HealthReport
from container_manager.store.installation import identify
from container_manager.store.transaction import Fence, Transaction, Worker
from container_manager.store.transitions import LeaseLostError
from container_manager.store.writer import Writer, write_directly
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.loops import running_log

make_host = sync_to_async(ExecutorHostFactory)
make_job = sync_to_async(ContainerJobFactory)


def worker(name: str = "me", lease: float = 15) -> Worker:
    return Worker(name, "test-node", timedelta(seconds=lease))


# ------------------------------------------------------------------ the writer


def add_token(tx: transaction.Transaction, items: list[str]) -> list[object]:
    """A unit that fails for a digest that exists, and answers an error for the name "no"."""
    answers: list[object] = []
    for name in items:
        if name == "no":
            answers.append(Conflict("no"))
            continue
        ApiToken.objects.create(name=name, digest=name, role="viewer")
        tx.event(EventKind.HOST_UPDATED, name)
        answers.append(name.upper())
    return answers


class Heavy(list):
    weight = 6000


async def test_a_transaction_takes_no_more_when_it_is_heavy_enough(writer: Writer) -> None:
    sizes: list[int] = []

    def count(tx: transaction.Transaction, items: list[Heavy]) -> list[None]:
        sizes.append(len(items))
        return [None] * len(items)

    await asyncio.gather(*(writer.write(count, Heavy()) for _ in range(5)))
    assert sizes == [2, 2, 1]


async def test_waiting_items_share_one_commit(writer: Writer) -> None:
    commits: list[int] = []
    writer.on_commit(lambda events: commits.append(len(events)))
    answers = await asyncio.gather(*(writer.write(add_token, f"t{n}") for n in range(50)))
    assert answers == [f"T{n}" for n in range(50)]
    assert sum(commits) == 50
    assert len(commits) <= 3


async def test_a_bad_item_fails_alone(writer: Writer) -> None:
    names = ["a", "b", "a", "no", "c\0", "d"]
    answers = await asyncio.gather(*(writer.write(add_token, name) for name in names), return_exceptions=True)
    assert answers[0] == "A"
    assert answers[1] == "B"
    assert isinstance(answers[2], Conflict)
    assert isinstance(answers[2].__cause__, IntegrityError)
    assert "UNIQUE" not in str(answers[2])
    assert str(answers[3]) == "no"
    assert answers[5] == "D"
    assert await ApiToken.objects.filter(name__in="abd").acount() == 3
    assert await RoutingEvent.objects.acount() == await ApiToken.objects.acount()


async def test_a_number_that_no_column_takes_fails_alone(writer: Writer) -> None:
    def set_exit_codes(_: Transaction, codes: Sequence[int]) -> list[int]:
        return [ContainerJob.objects.update(exit_code=code) and code for code in codes]

    await sync_to_async(ContainerJobFactory)()
    numbers = [writer.write(set_exit_codes, code) for code in (1, 10**30, 2)]
    answers = await asyncio.gather(*numbers, writer.write(add_token, "other"), return_exceptions=True)
    assert [answers[0], *answers[2:]] == [1, 2, "OTHER"]
    assert isinstance(answers[1], (OverflowError, DataError))


async def test_a_write_whose_caller_has_given_up_does_not_stop_the_writer(writer: Writer) -> None:
    abandoned = asyncio.create_task(writer.write(add_token, "abandoned"))
    await asyncio.sleep(0)
    abandoned.cancel()
    assert await writer.write(add_token, "next") == "NEXT"
    assert await ApiToken.objects.acount() == 2


async def test_a_listener_that_fails_does_not_stop_the_writer(writer: Writer) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    writer.on_commit(fail)
    assert await writer.write(add_token, "one") == "ONE"
    assert await writer.write(add_token, "two") == "TWO"


async def test_stopping_commits_what_waits() -> None:
    writer = Writer()
    writer.open()
    writes = [asyncio.create_task(writer.write(add_token, f"t{n}")) for n in range(20)]
    await asyncio.sleep(0)
    await writer.stop()
    assert [await write for write in writes] == [f"T{n}" for n in range(20)]


async def test_writing_directly_raises_the_items_error() -> None:
    with pytest.raises(Conflict, match="no"):
        await write_directly(add_token, "no")


# ------------------------------------------------------------------ the event log


def tell(tx: transaction.Transaction, items: list[int]) -> list[None]:
    for number in items:
        tx.event(EventKind.HOST_UPDATED, str(number))
    return [None] * len(items)


async def read(log: EventLog, after: int | None, count: int) -> list[str]:
    found = []
    async for event in log.subscribe(after):
        found.append(event.message)
        if len(found) == count:
            break
    return found


@pytest.fixture
async def log(writer: Writer) -> EventLog:
    async with running_log() as started:
        writer.on_commit(lambda _: started.wake())
        yield started


async def test_each_subscriber_gets_every_event_once_in_order(writer: Writer, log: EventLog) -> None:
    live = asyncio.create_task(read(log, None, 300))
    await asyncio.sleep(0)
    for start in range(0, 300, 30):
        await asyncio.gather(*(writer.write(tell, n) for n in range(start, start + 30)))
    expected = [str(n) for n in range(300)]
    assert await live == expected
    assert await read(log, 0, 300) == expected
    middle = await RoutingEvent.objects.aget(message="99")
    assert await read(log, middle.pk, 200) == expected[100:]


async def test_a_slow_subscriber_costs_bounded_memory_and_misses_nothing(writer: Writer, log: EventLog) -> None:
    slow = log.subscribe(0)
    await writer.write(tell, -1)
    assert (await anext(slow)).message == "-1"
    total = QUEUE_LIMIT + 700
    for start in range(0, total, 100):
        await asyncio.gather(*(writer.write(tell, n) for n in range(start, start + 100)))
    newest = await RoutingEvent.objects.order_by("pk").alast()
    await eventually(lambda: log.cursor == newest.pk)
    (audience,) = log.audiences
    assert all(subscriber.waiting <= QUEUE_LIMIT for subscriber in audience.subscribers)
    assert [(await anext(slow)).message for _ in range(total)] == [str(n) for n in range(total)]
    await slow.aclose()
    assert not log.audiences


async def test_a_subscriber_that_has_caught_up_reads_no_more_pages(writer: Writer, log: EventLog, monkeypatch) -> None:
    from container_manager.store import events

    pages, read_page = [], events.page

    def page(cursor: int, *args: object) -> list:
        found = read_page(cursor, *args)
        # Another process commits one more each time, as on a busy system.
        transaction.commit_one(tell, len(pages))
        pages.append(found)
        return found

    monkeypatch.setattr("container_manager.store.events.page", page)
    await asyncio.gather(*(writer.write(tell, n) for n in range(5)))
    newest = await threads.read(events.newest)
    await eventually(lambda: log.cursor == newest)
    reading = asyncio.create_task(read(log, 0, 6))
    await eventually(lambda: pages)
    log.wake()
    assert len(await asyncio.wait_for(reading, 5)) == 6
    assert len(pages) == 1


@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_live_events_are_prepared_once_for_all_equal_subscribers(
    writer: Writer, log: EventLog, seconds: float
) -> None:
    ready: list[str] = []

    async def prepare(events: list) -> None:
        ready.extend(event.message for event in events)

    async def follow(wanted: set[str]) -> list[str]:
        seen: list[str] = []
        async with aclosing(log.batches(None, lambda e: e.message in wanted, seconds, prepare)) as batches:
            while len(seen) < len(wanted):
                seen += [event.message for event in await anext(batches)]
        return seen

    readers = [asyncio.create_task(follow(set(wanted))) for wanted in ("024", "24", "24", "4")]
    await eventually(lambda: [len(a.subscribers) for a in log.audiences] == [4])
    await asyncio.gather(*(writer.write(tell, n) for n in range(5)))
    assert [len(seen) for seen in await asyncio.gather(*readers)] == [3, 2, 2, 1]
    assert ready == ["0", "2", "4"]


async def test_a_preparation_that_is_too_slow_does_not_keep_events_back(
    writer: Writer, log: EventLog, monkeypatch
) -> None:
    monkeypatch.setattr("container_manager.events.audience.PREPARE_SECONDS", 0.01)
    monkeypatch.setattr("container_manager.events.audience.QUEUE_LIMIT", 20)
    calls = []

    async def prepare(events: list) -> None:
        calls.append(events)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        await asyncio.sleep(3600)

    async with aclosing(log.batches(None, prepare=prepare)) as batches:
        seen: list[str] = []
        reading = asyncio.create_task(anext(batches))
        await eventually(lambda: log.audiences)
        for start in range(0, 100, 25):
            await asyncio.gather(*(writer.write(tell, n) for n in range(start, start + 25)))
        seen += [event.message for event in await reading]
        while len(seen) < 100:
            seen += [event.message for event in await anext(batches)]
    assert seen == [str(n) for n in range(100)]


async def test_a_filtered_subscriber_does_not_read_again_what_it_did_not_want(
    writer: Writer, log: EventLog, monkeypatch
) -> None:
    from container_manager.store import events

    monkeypatch.setattr("container_manager.events.audience.QUEUE_LIMIT", 20)
    held = asyncio.Event()

    async def prepare(events: list) -> None:
        if events[-1].message == "last":
            await held.wait()

    wanted = {"last", "missed"}
    async with aclosing(log.batches(None, lambda e: e.message in wanted, prepare=prepare)) as batches:
        reading = asyncio.create_task(anext(batches))
        await eventually(lambda: log.audiences)
        (audience,) = log.audiences
        for number in range(10):
            await writer.write(tell, number)
        (subscriber,) = audience.subscribers
        await eventually(lambda: subscriber.passed == log.cursor > 0)
        await writer.write(events.delete_old, timedelta(seconds=-1))
        await writer.write(tell, "last")
        # While that is made ready, more comes than is kept for the audience.
        for start in range(0, 30, 10):
            await asyncio.gather(*(writer.write(tell, n) for n in range(start, start + 10)))
        await writer.write(tell, "missed")
        held.set()
        seen = [event.message for event in await reading]
        while "missed" not in seen:
            seen += [event.message for event in await anext(batches)]
        assert seen == ["last", "missed"]


async def test_slow_subscribers_continue_from_memory_and_reconnecting_ones_share_a_read(
    writer: Writer, log: EventLog, monkeypatch
) -> None:
    from container_manager.store import events

    pages, read_page = [], events.page

    def page(*args: object) -> list:
        pages.append(args)
        return read_page(*args)

    monkeypatch.setattr("container_manager.store.events.page", page)
    await asyncio.gather(*(writer.write(tell, n) for n in range(10)))
    newest = await threads.read(events.newest)
    await eventually(lambda: log.cursor == newest)
    first = (await threads.read(events.following, 0, 1))[0].id
    assert await read(log, first, 9) == [str(n) for n in range(1, 10)]
    assert pages == [], "from memory"
    async with running_log() as other:
        readers = [asyncio.create_task(read(other, first, 9)) for _ in range(50)]
        assert {tuple(seen) for seen in await asyncio.gather(*readers)} == {tuple(str(n) for n in range(1, 10))}
    assert len(pages) == 1, "from the table, together"


async def test_catching_up_outlives_a_database_that_is_away(writer: Writer, log: EventLog, monkeypatch) -> None:
    from container_manager.store import events

    read_page, failed = events.page, []

    def fail_once(*args: object) -> list:
        if not failed:
            failed.append(True)
            raise OperationalError("away")
        return read_page(*args)

    await asyncio.gather(*(writer.write(tell, n) for n in range(3)))
    monkeypatch.setattr("container_manager.store.events.page", fail_once)
    monkeypatch.setattr("container_manager.events.log.RETRY_SECONDS", 0.01)
    async with running_log() as other:
        assert await asyncio.wait_for(read(other, 0, 3), 10) == ["0", "1", "2"]
    assert failed


async def test_old_events_are_deleted_and_their_cursors_expire(writer: Writer, log: EventLog) -> None:
    from container_manager.store import events

    await threads.read(identify)
    await asyncio.gather(*(writer.write(tell, n) for n in range(10)))
    ids = [event.id for event in await threads.read(events.page, 0, 100)]
    await RoutingEvent.objects.filter(pk__lte=ids[5]).aupdate(at=timezone.now() - timedelta(days=2))
    assert await writer.write(events.delete_old, timedelta(days=1)) is False
    assert [event.id for event in await threads.read(events.following, 0, 100)] == ids[6:]
    assert await read(log, ids[5], 4) == ["6", "7", "8", "9"]
    # Another process, which has not read them while they were kept.
    async with running_log() as other:
        with pytest.raises(events.CursorExpiredError) as expired:
            await read(other, ids[4], 1)
    assert expired.value.oldest == ids[5]
    # The newest stays, however old it is: its id is the next cursor to begin from.
    await RoutingEvent.objects.aupdate(at=timezone.now() - timedelta(days=2))
    await writer.write(events.delete_old, timedelta(days=1))
    assert [event.id for event in await threads.read(events.following, 0, 100)] == ids[9:]
    assert await threads.read(events.newest) == ids[9]


async def test_one_candidate_has_a_duty_until_it_resigns_or_its_lease_ends() -> None:
    def candidate(owner: str, *duties: str, lease: float = 60) -> leadership.Candidate:
        return leadership.Candidate(owner, duties, timedelta(seconds=lease))

    async def stand(by: leadership.Candidate) -> set[str]:
        return await write_directly(leadership.campaign, by)

    assert await stand(candidate("a", "", "here")) == {"", "here"}
    assert await stand(candidate("b", "", "there")) == {"there"}
    assert await stand(candidate("a", "", "here")) == {"", "here"}
    await write_directly(leadership.resign, "a")
    assert await stand(candidate("b", "", "there", lease=-1)) == {"", "there"}
    assert await stand(candidate("a", "", "here")) == {"", "here"}, "an expired lease blocks no other candidate"


async def test_events_of_another_process_are_found_without_a_signal(log: EventLog, monkeypatch) -> None:
    monkeypatch.setattr("container_manager.events.log.REPAIR_SECONDS", 0.05)
    waiting = asyncio.create_task(read(log, None, 1))
    await asyncio.sleep(0)
    log.wake()
    await write_directly(tell, 7)
    assert await asyncio.wait_for(waiting, 5) == ["7"]


async def test_draining_ends_every_subscription(writer: Writer, log: EventLog) -> None:
    seen: list[str] = []

    async def follow() -> None:
        async for event in log.subscribe(0):
            seen.append(event.message)

    readers = [asyncio.create_task(follow()) for _ in range(3)]
    await writer.write(tell, 1)
    await eventually(lambda: seen == ["1"] * 3)
    log.drain()
    await asyncio.wait_for(log.drained(), 5)
    await asyncio.gather(*readers)
    assert [event async for event in log.subscribe(0)] == []


async def test_the_tail_outlives_a_database_that_is_away(writer: Writer, log: EventLog, monkeypatch) -> None:
    from container_manager.store import events

    following, failed = events.following, []

    def fail_once(*args: object) -> list:
        if not failed:
            failed.append(True)
            raise OSError("away")
        return following(*args)

    waiting = asyncio.create_task(read(log, None, 1))
    await eventually(lambda: log.audiences)
    monkeypatch.setattr("container_manager.events.log.REPAIR_SECONDS", 0.05)
    monkeypatch.setattr("container_manager.store.events.following", fail_once)
    await writer.write(tell, 1)
    await writer.write(tell, 2)
    assert await asyncio.wait_for(waiting, 10) in (["1"], ["2"])


# ------------------------------------------------------------------ claims


async def claimed(by: Worker | None = None) -> list[tuple[ContainerJob, Fence]]:
    return await write_directly(leases.claim, by or worker())


async def test_a_claim_takes_what_its_node_can_reach_once() -> None:
    docker = {"executor_type": "docker", "config": {"url": "unix:///x"}}
    here, there = await make_host(**docker), await make_host(**docker | {"config": {"node": "elsewhere"}})
    anywhere = await make_host()
    jobs = [await make_job(host=host, status="routed") for host in (here, there, anywhere)]
    found = await claimed()
    assert [job.pk for job, _ in found] == [jobs[0].pk, jobs[2].pk]
    assert {job.status for job, _ in found} == {"launching"}
    assert await claimed() == []


async def test_a_claim_goes_by_priority_then_age() -> None:
    host = await make_host()
    jobs = [await make_job(host=host, status="routed", priority=priority) for priority in (0, 5, 0)]
    assert [job.pk for job, _ in await claimed()] == [jobs[1].pk, jobs[0].pk, jobs[2].pk]


async def test_a_lost_lease_is_taken_over_and_the_late_owner_changes_nothing() -> None:
    job = await make_job(host=await make_host(), status="routed")
    ((_, old),) = await claimed(worker("slow", lease=-1))
    ((_, new),) = await claimed(worker("quick"))
    assert new.epoch == old.epoch + 1
    now = timezone.now()
    for unit, item in (
        (transitions.created, (old, "x")),
        (transitions.started, (old, now)),
        (transitions.finished, (old, End(JobStatus.FAILED))),
        (transitions.host_failed, (old, HostFault("late", 3))),
    ):
        with pytest.raises(LeaseLostError):
            await write_directly(unit, item)
    assert not await RoutingEvent.objects.aexists()
    await write_directly(transitions.created, (new, "container"))
    await write_directly(transitions.started, (new, now))
    await write_directly(transitions.finished, (new, End(JobStatus.SUCCEEDED, 0)))
    await job.arefresh_from_db()
    assert (job.status, job.execution_id, job.started_at) == ("succeeded", "container", now)
    with pytest.raises(LeaseLostError):
        await write_directly(transitions.finished, (new, End(JobStatus.FAILED, 1)))


async def test_renewing_keeps_a_lease_and_releasing_gives_it_up() -> None:
    await make_job(host=await make_host(), status="routed")
    me = worker("me", lease=15)
    ((_, fence),) = await claimed(me)
    assert await write_directly(leases.renew, (me, [fence])) == ([], [])
    await ContainerJob.objects.aupdate(cancel_requested_at=timezone.now())
    stale = fence._replace(epoch=7)
    assert await write_directly(leases.renew, (me, [fence, stale])) == ([fence.job_id], [stale.job_id])
    assert await write_directly(leases.renew, (me, [])) == ([], [])
    assert await claimed(worker("you")) == []
    assert await write_directly(leases.expire, "another") == 0
    assert await write_directly(leases.expire, "me") == 1
    assert len(await claimed(worker("you"))) == 1


def _by_sql(pk: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE container_manager_executorhost SET health_error = 'told' WHERE id = %s", [pk])


def _rolled_back(pk: int) -> str:
    with database.atomic():
        ExecutorHost.objects.filter(pk=pk).update(region="never")
        seen = hosts.by_ids([pk], hosts.NO_MORE)[pk].region
        database.set_rollback(True)
    return seen


async def test_hosts_in_memory_are_as_their_rows() -> None:
    host = await make_host(region="eu", config={"accept": "any"})

    async def shown() -> ExecutorHost:
        return (await threads.read(hosts.by_ids, [host.pk], hosts.NO_MORE))[host.pk]

    first = await shown()
    assert (first.region, "config" in vars(first)) == ("eu", False)
    first.region = "changed by a caller"
    assert (await shown()).region == "eu"
    assert await threads.read(_rolled_back, host.pk) == "never"
    assert (await shown()).region == "eu"
    await ExecutorHost.objects.filter(pk=host.pk).aupdate(region="us")
    assert (await shown()).region == "us"
    await threads.read(_by_sql, host.pk)
    assert (await shown()).health_error == "told"
    # A process of the version before saves what it has read, which may be old.
    await host.asave()
    again = await shown()
    assert (again.region, again.health_error) == ("eu", "")
    assert again.revision not in {first.revision, host.revision}
    await host.adelete()
    assert await threads.read(hosts.by_ids, [host.pk or again.pk], hosts.NO_MORE) == {}


def _statements(pks: list[int]) -> int:
    with CaptureQueriesContext(connection) as seen:
        assert list(hosts.by_ids(pks, hosts.NO_MORE)) == pks
    return len(seen)


async def test_hosts_that_have_not_changed_are_not_read_and_only_so_many_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("container_manager.store.host_rows.MOST_KEPT", 2)
    pks = [(await make_host()).pk for _ in range(4)]
    # A statement for the revisions, and one for the rows that are not in memory.
    wanted = (pks[:2], pks[:2], pks[2:], pks[:2])
    assert [await threads.read(_statements, some) for some in wanted] == [2, 1, 2, 2]


async def test_an_end_frees_the_room_and_keeps_the_output() -> None:
    host = await make_host(max_concurrent_jobs=1)
    job = await make_job(host=host, status="routed")
    ((_, fence),) = await claimed()
    assert (await threads.read(hosts.by_ids, [host.pk]))[host.pk].used_jobs == 1
    lines = [OutputLine("stdout", 1, "hello"), OutputLine("stderr", 2, "ünï")]
    await write_directly(
        transitions.finished, (fence, End(JobStatus.SUCCEEDED, 0, output=outputs.compress(Output.of(lines))))
    )
    assert (await threads.read(hosts.by_ids, [host.pk]))[host.pk].used_jobs == 0
    wanted = outputs.Wanted(job.pk, None, 9)
    assert [line for _, line in (await threads.read(outputs.pages, [wanted], 10**9))[wanted]] == lines
    assert await JobOutput.objects.acount() == 1


async def test_a_host_fault_backs_off_and_gives_up_in_the_end() -> None:
    job = await make_job(host=await make_host(), status="routed")
    for attempt, seconds in ((1, 1), (2, 2), (3, 4)):
        ((_, fence),) = await claimed()
        before = timezone.now()
        await write_directly(transitions.host_failed, (fence, HostFault("no room at the inn", 3)))
        await job.arefresh_from_db()
        assert (job.status, job.attempt, job.host_id) == ("pending", attempt + 1, None)
        assert timedelta(seconds=seconds - 0.5) < job.not_before - before < timedelta(seconds=seconds + 2)
        await ContainerJob.objects.aupdate(status="routed", host=await ExecutorHost.objects.afirst())
    ((_, fence),) = await claimed()
    await write_directly(transitions.host_failed, (fence, HostFault("no room at the inn", 3)))
    await job.arefresh_from_db()
    assert (job.status, job.error) == ("failed", "no room at the inn")


async def test_a_host_that_lacks_what_a_job_needs_is_not_tried_again() -> None:
    first, second = await make_host(), await make_host()
    await make_host(is_draining=True)
    job = await make_job(host=first, status="routed", infrastructure_failures=3)
    lack = HostFault("no login", None, lacking=True, ejects=False)
    ((_, fence),) = await claimed()
    await write_directly(transitions.host_failed, (fence, lack))
    await job.arefresh_from_db()
    assert (job.status, job.attempt, job.not_before) == ("pending", 2, None)
    assert (job.failed_hosts, job.unfit_hosts) == ([first.pk], [first.pk])
    assert job.class_key == class_key(job.requirements())
    await first.arefresh_from_db()
    assert (first.launch_error, first.launch_failures, first.health_status) == ("no login", 0, "healthy")

    await ContainerJob.objects.aupdate(status="routed", host=second)
    ((_, fence),) = await claimed()
    await write_directly(transitions.host_failed, (fence, lack))
    await job.arefresh_from_db()
    assert (job.status, job.error) == ("failed", "no login")


async def test_a_success_clears_what_launches_were_refused_for() -> None:
    host = await make_host(launch_error="no login")
    await make_job(host=host, status="routed")
    ((_, fence),) = await claimed()
    await write_directly(transitions.created, (fence, "x"))
    await write_directly(transitions.started, (fence, timezone.now()))
    await host.arefresh_from_db()
    assert host.launch_error == ""


async def test_the_queue_timeout_counts_for_each_attempt() -> None:
    job = await make_job(host=await make_host(), status="routed", queue_timeout_seconds=60)
    ((_, fence),) = await claimed()
    await write_directly(transitions.host_failed, (fence, HostFault("down", None)))
    await job.arefresh_from_db()
    assert job.queue_deadline - job.not_before == timedelta(seconds=60)


async def test_jobs_of_a_class_have_the_key_of_earlier_versions() -> None:
    needs = JobRequirements(memory=64)
    as_before = repr(needs).replace(", failed_hosts=(), unfit_hosts=()", "")
    assert "hosts" not in as_before.replace("reserved_host", "")
    assert class_key(needs) == hashlib.blake2b(as_before.encode(), digest_size=16).hexdigest()
    assert class_key(needs._replace(failed_hosts=(1,))) != class_key(needs)


async def test_a_host_that_does_not_answer_is_left_alone_after_three_launches() -> None:
    host = await make_host()
    for _ in range(3):
        await make_job(host=host, status="routed")
    for _, fence in await claimed():
        await write_directly(transitions.host_failed, (fence, HostFault("unplugged", None)))
    await host.arefresh_from_db()
    assert (host.health_status, host.health_error) == ("unhealthy", "unplugged")
    assert await ContainerJob.objects.filter(status="pending").acount() == 3
    assert await RoutingEvent.objects.filter(kind="host_health_changed").acount() == 1


async def test_faults_of_hosts_do_not_use_up_a_jobs_own_attempts() -> None:
    job = await make_job(host=await make_host(), status="routed", max_attempts=2, attempt=2, infrastructure_failures=1)
    ((_, fence),) = await claimed()
    await write_directly(transitions.finished, (fence, End(JobStatus.FAILED, 1)))
    await job.arefresh_from_db()
    assert (job.status, job.attempt) == ("pending", 3)
    await ContainerJob.objects.aupdate(status="routed", host=await ExecutorHost.objects.afirst())
    ((_, fence),) = await claimed()
    await write_directly(transitions.finished, (fence, End(JobStatus.FAILED, 1)))
    await job.arefresh_from_db()
    assert (job.status, job.attempt) == ("failed", 3)


async def test_a_batch_done_again_begins_from_what_was_submitted(writer: Writer) -> None:
    """The first try routes `low` before it fails; done again one by one, another has taken the only slot."""
    await make_host(max_concurrent_jobs=1)
    low, high, bad = [
        ContainerJobFactory.build(name=name, priority=priority)
        for name, priority in (("low", 9), ("high", 0), ("bad", 0))
    ]
    bad.labels = {"unstorable": {1, 2}}
    submissions = [job_store.Submission([job]) for job in (high, low, bad)]
    answers = await asyncio.gather(
        *(writer.write(job_store.submit, item) for item in submissions), return_exceptions=True
    )
    assert isinstance(answers[2], TypeError)
    ended = {job.name: job.status async for job in ContainerJob.objects.all()}
    assert sorted(ended.values()) == ["pending", "routed"]
    (state,) = await threads.read(states)
    assert state.jobs == 1


async def test_an_error_of_the_database_is_given_to_all_callers_at_once(writer: Writer, monkeypatch) -> None:
    tries = []

    def away(*_: object) -> None:
        tries.append(True)
        raise OperationalError("the database is away")

    monkeypatch.setattr("container_manager.store.transaction._transact", away)
    answers = await asyncio.gather(*(writer.write(add_token, f"t{n}") for n in range(20)), return_exceptions=True)
    assert all(isinstance(answer, OperationalError) for answer in answers)
    assert len(tries) <= 2


async def test_a_back_off_that_is_over_is_no_next_change() -> None:
    await make_job(not_before=timezone.now() - timedelta(seconds=1))
    assert await threads.read(pending.next_change, timezone.now()) is None
    later = await make_job(not_before=timezone.now() + timedelta(hours=1))
    assert await threads.read(pending.next_change, timezone.now()) == later.not_before


async def test_a_cancelled_job_whose_host_fails_it_is_not_tried_again() -> None:
    job = await make_job(host=await make_host(), status="routed")
    ((_, fence),) = await claimed()
    await ContainerJob.objects.aupdate(cancel_requested_at=timezone.now())
    await write_directly(transitions.host_failed, (fence, HostFault("broken", 3)))
    await job.arefresh_from_db()
    assert job.status == "cancelled"


# ------------------------------------------------------------------ health


async def report(host: ExecutorHost, status: HealthStatus) -> str:
    memory = 2048 if status == HealthStatus.HEALTHY else None
    found = HealthReport(
        host.pk, status, timezone.now(), 1.5, "" if memory else "unplugged", memory, 2.0 if memory else None
    )
    await write_directly(health_store.record_reports, found)
    await host.arefresh_from_db()
    return str(host.health_status)


async def test_health_changes_after_several_probes_in_a_row() -> None:
    host = await make_host(health_status=HealthStatus.UNKNOWN)
    up, down = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY
    assert [await report(host, found) for found in (up, down, down, up, down, down, down, up, up)] == [
        "healthy", "healthy", "healthy", "healthy", "healthy", "healthy", "unhealthy", "unhealthy", "healthy",
    ]  # fmt: skip
    assert [event.kind async for event in RoutingEvent.objects.order_by("pk")] == ["host_health_changed"] * 3


async def test_what_the_engine_reports_is_the_limit_where_none_is_set() -> None:
    host = await make_host()
    await report(host, HealthStatus.HEALTHY)
    (state,) = await threads.read(states)
    assert (state.max_memory, state.max_cpu) == (2048, 2000)
    await report(host, HealthStatus.UNHEALTHY)
    (state,) = await threads.read(states)
    assert (state.max_memory, state.max_cpu) == (2048, 2000)
    await ExecutorHost.objects.aupdate(max_memory_mb=100, max_cpu_cores=0.5)
    (state,) = await threads.read(states)
    assert (state.max_memory, state.max_cpu) == (100, 500)
    instance = (await threads.read(hosts.candidates))[0]
    assert hosts.state(instance) == state


async def test_the_snapshot_and_the_instances_agree() -> None:
    for number in range(3):
        host = await make_host(labels={"n": str(number)}, max_memory_mb=4096, is_draining=number == 1)
        await make_job(host=host, status="running", memory_limit=100, cpu_limit=0.25)
        await make_job(host=host, status="succeeded", memory_limit=100)
    assert [hosts.state(host) for host in await threads.read(hosts.candidates)] == await threads.read(states)


# ------------------------------------------------------------------ the time of a statement

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT COUNT(*) FROM n"


def run_endlessly() -> None:
    with connection.cursor() as cursor:
        cursor.execute(ENDLESS)


async def test_a_statement_that_takes_too_long_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_brief", threads._brief._replace(seconds=0.2))
    with pytest.raises(threads.TookTooLong):
        await threads.read_briefly(run_endlessly)
    # Its thread and its connection are free again.
    assert not await threads.read_briefly(hosts.any_exist)


async def test_a_caller_that_leaves_ends_its_statement() -> None:
    leaving = asyncio.create_task(threads.read_briefly(run_endlessly))
    after = asyncio.create_task(threads.read_briefly(hosts.any_exist))
    await eventually(lambda: threads._brief.threads._work_queue.qsize() == 1)
    leaving.cancel()
    assert not await after


async def test_what_waits_for_a_thread_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    first = asyncio.create_task(threads.read_briefly(run_endlessly))
    await asyncio.sleep(0)
    monkeypatch.setattr(threads, "_brief", threads._brief._replace(seconds=0.1))
    with pytest.raises(threads.TookTooLong):
        await threads.read_briefly(lambda: begun.append(1))
    first.cancel()
    await threads.read_briefly(hosts.any_exist)
    assert begun == []
