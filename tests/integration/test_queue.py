"""The queue: classes, refusals, the one reservation, timeouts, ejection; and the records of decisions."""

from collections import Counter
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from container_manager.domain.kinds import EventKind
from container_manager.domain.outcome import HostFault
from container_manager.executors.factory import ExecutorFactory
from container_manager.models import (
    ContainerJob,
    ExecutorHost,
    QueueRefusal,
    RoutingDecision,
    RoutingEvaluation,
    RoutingEvent,
    RoutingFleet,
    class_key,
)
from container_manager.service import Service
from container_manager.store import (
    bulk,
    decisions,
    host_changes,
    jobs,
    pending,
    routing_pass,
    scheduling,
    threads,
    transitions,
)
from container_manager.store.decisions import verdicts
from container_manager.store.fleet import states
from container_manager.store.pending import delete_unused_refusals
from container_manager.store.transaction import Actor, Fence, commit_one
from container_manager.store.writer import write_directly
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory

make_host = sync_to_async(ExecutorHostFactory)
make_job = sync_to_async(ContainerJobFactory)


async def submit(count: int = 1, **values: object) -> list[ContainerJob]:
    fresh = [ContainerJobFactory.build(**values) for _ in range(count)]
    return await write_directly(jobs.submit, jobs.Submission(fresh))


async def a_pass() -> bool:
    passed: scheduling.Passed = await write_directly(scheduling.route_pending, None)
    return passed.again


async def fresh(job: ContainerJob) -> ContainerJob:
    return await ContainerJob.objects.aget(pk=job.pk)


async def kinds(job: ContainerJob) -> list[str]:
    return [
        kind async for kind in RoutingEvent.objects.filter(job_id=job.pk).order_by("pk").values_list("kind", flat=True)
    ]


def with_settings(settings: object, **changes: object) -> None:
    settings.CONTAINER_MANAGER = settings.CONTAINER_MANAGER.model_copy(update=changes)


# ------------------------------------------------------------------ classes


def queries_of_a_pass() -> int:
    with CaptureQueriesContext(connection) as captured:
        commit_one(scheduling.route_pending, None)
    return len(captured)


async def test_a_pass_costs_the_classes_that_wait_and_not_the_jobs() -> None:
    await make_host(max_concurrent_jobs=0)
    counts = []
    for jobs_each in (1, 50):
        for memory in (64, 65, 66):
            await submit(jobs_each, memory_limit=memory)
        await a_pass()
        counts.append(await threads.write(queries_of_a_pass))
    assert counts[0] == counts[1]


async def test_a_refusal_is_stored_once_per_class_and_recorded_when_it_changes() -> None:
    host = await make_host(max_concurrent_jobs=1)
    await make_job(host=host, status="running")
    first, second, third = await submit(3)
    other = (await submit(memory_limit=65))[0]
    assert [await kinds(job) for job in (first, second, other)] == [["job_submitted", "job_refused"]] * 3
    assert await QueueRefusal.objects.acount() == 2
    await a_pass()
    assert await kinds(first) == ["job_submitted", "job_refused"], "nothing is new"
    await ExecutorHost.objects.aupdate(is_draining=True)
    await a_pass()
    assert (await kinds(first))[2:] == ["job_refused"]
    assert (await kinds(second))[2:] == [], "the oldest speaks for its class"
    refusal = await QueueRefusal.objects.aget(class_key=second.class_key)
    assert refusal.rejections == [["DRAINING", 1], ["SLOTS", 1]]
    decision = await RoutingDecision.objects.filter(job_id=first.pk).alatest("pk")
    assert decision.rejections == [["DRAINING", 1], ["SLOTS", 1]]
    await ExecutorHost.objects.aupdate(is_draining=False, max_concurrent_jobs=3)
    await a_pass()
    assert [(await fresh(job)).status for job in (first, second, third, other)] == [
        "routed",
        "routed",
        "pending",
        "pending",
    ]
    assert await QueueRefusal.objects.filter(class_key=third.class_key).aexists()
    await ExecutorHost.objects.aupdate(max_concurrent_jobs=5)
    await a_pass()
    assert not await QueueRefusal.objects.aexists(), "no job waits for it any more"


async def test_what_waits_comes_before_what_is_new_at_equal_priority() -> None:
    host = await make_host(max_concurrent_jobs=1)
    blocker = await make_job(host=host, status="running")
    (old,) = await submit()
    await ContainerJob.objects.filter(pk=blocker.pk).aupdate(status="succeeded")
    (new,) = await submit()
    assert ((await fresh(old)).status, new.status) == ("routed", "pending")
    await ExecutorHost.objects.aupdate(max_concurrent_jobs=2)
    (urgent,) = await submit(priority=1)
    assert (urgent.status, (await fresh(new)).status) == ("routed", "pending")


async def test_a_pass_that_had_enough_leaves_the_rest_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_pass, "MOST_PLACED", 5)
    await make_host(max_concurrent_jobs=100)
    old = [await make_job() for _ in range(12)]
    (new,) = await submit()
    assert new.status == "pending", "it does not overtake what was not read"
    assert Counter([(await fresh(job)).status for job in old]) == {"routed": 5, "pending": 7}
    assert await a_pass() is True
    assert await a_pass() is False
    assert [(await fresh(job)).status for job in (*old, new)] == ["routed"] * 13
    named = [await make_job() for _ in range(12)]
    answers = await ExecutorFactory().route_jobs(named)
    assert [answer.key for answer in answers] == [job.pk for job in named]
    assert all(answer.host is not None for answer in answers)


async def test_the_queue_says_what_waits_for_what() -> None:
    host = await make_host(max_concurrent_jobs=1)
    await make_job(host=host, status="running")
    await submit(3)
    await submit(2, memory_limit=65)
    await submit(1, region_preference="mars", region_required=True)
    found = await threads.read(pending.groups)
    assert [(group.verdict, group.rejections, group.jobs) for group in found] == [
        ("NOT_NOW", [("SLOTS", 1)], 5),
        ("NEVER", [("REGION", 1), ("SLOTS", 1)], 1),
    ]
    assert found[0].oldest == (await ContainerJob.objects.filter(status="pending").aearliest("pk")).submitted_at
    assert await threads.read(jobs.count_active) == 1


async def test_refusals_of_classes_without_pending_jobs_are_deleted() -> None:
    await make_host(max_concurrent_jobs=0)
    first, other = (await submit())[0], (await submit(memory_limit=65))[0]
    await write_directly(jobs.cancel, (first.pk, None))
    await write_directly(delete_unused_refusals, None)
    assert [refusal.class_key async for refusal in QueueRefusal.objects.all()] == [other.class_key]


# ------------------------------------------------------------------ queue timeouts


async def test_a_job_fails_that_was_not_routed_in_time(service: Service) -> None:
    await make_host(max_concurrent_jobs=0)
    patient, hasty = await service.process.writer.write(
        jobs.submit,
        jobs.Submission([ContainerJobFactory.build(), ContainerJobFactory.build(queue_timeout_seconds=1)]),
    )
    await eventually(lambda: _is(hasty, "failed"), 10)
    ended = await fresh(hasty)
    assert ended.error.startswith("It was not routed within its queueTimeoutSeconds of 1. No host could ever take")
    assert ended.finished_at is not None
    assert (await kinds(hasty))[-1] == "job_finished"
    assert (await fresh(patient)).status == "pending"


async def test_once_routed_a_job_has_no_queue_timeout() -> None:
    await make_host()
    (job,) = await submit(queue_timeout_seconds=5)
    assert ((await fresh(job)).status, (await fresh(job)).queue_deadline) == ("routed", None)
    (later,) = await submit(queue_timeout_seconds=5, memory_limit=64, host_selector={"gpu": "yes"})
    deadline = (await fresh(later)).queue_deadline
    assert deadline - later.submitted_at == timedelta(seconds=5)
    assert await threads.read(pending.next_change, timezone.now()) == deadline
    await ExecutorHost.objects.aupdate(labels={"gpu": "yes"})
    await a_pass()
    assert ((await fresh(later)).status, (await fresh(later)).queue_deadline) == ("routed", None)


async def _is(job: ContainerJob, status: str) -> bool:
    return (await fresh(job)).status == status


# ------------------------------------------------------------------ the one reservation


@pytest.fixture
def impatient(settings: object) -> None:
    with_settings(settings, reserve_after_seconds=0.000001)


async def test_a_big_job_does_not_starve(impatient: None) -> None:
    host = await make_host(max_memory_mb=1000)
    small = [await make_job(host=host, status="running", memory_limit=500) for _ in range(2)]
    (big,) = await submit(memory_limit=1000)
    await a_pass()
    assert (await fresh(big)).reserved_host_id == host.pk
    refusal = await QueueRefusal.objects.aget(class_key=(await fresh(big)).class_key)
    assert refusal.message.endswith("The room of one host is reserved for it.")
    assert (await kinds(big))[-1] == "host_reserved"
    # Room appears, and small jobs that come meanwhile do not take it; those above it do.
    await ContainerJob.objects.filter(pk=small[0].pk).aupdate(status="succeeded")
    (late,) = await submit(memory_limit=400)
    assert late.status == "pending"
    waits_for = await QueueRefusal.objects.aget(class_key=late.class_key)
    assert waits_for.rejections == [["RESERVED", 1]]
    (urgent,) = await submit(memory_limit=400, priority=1)
    assert urgent.status == "routed"
    await ContainerJob.objects.filter(pk__in=[small[1].pk, urgent.pk]).aupdate(status="succeeded")
    await a_pass()
    placed = await fresh(big)
    assert (placed.status, placed.reserved_host_id) == ("routed", None)
    assert placed.class_key == class_key(placed.requirements()), "as if no room had been kept"
    await ContainerJob.objects.filter(pk=big.pk).aupdate(status="succeeded")
    await a_pass()
    assert (await fresh(late)).status == "routed"


async def test_there_is_one_reservation_and_it_is_given_up_with_its_host(impatient: None) -> None:
    host, other = await make_host(max_concurrent_jobs=1), await make_host(max_concurrent_jobs=1)
    for taken in (host, other):
        await make_job(host=taken, status="running")
    oldest, younger = (await submit(memory_limit=70))[0], (await submit(memory_limit=71))[0]
    await a_pass()
    await a_pass()
    kept = (await fresh(oldest)).reserved_host_id
    assert kept in {host.pk, other.pk}
    assert (await fresh(younger)).reserved_host_id is None
    await ExecutorHost.objects.filter(pk=kept).aupdate(is_draining=True)
    assert await a_pass() is True, "others may profit"
    assert (await fresh(oldest)).reserved_host_id == host.pk + other.pk - kept
    await write_directly(jobs.cancel, (oldest.pk, None))
    assert (await fresh(oldest)).reserved_host_id is None
    await a_pass()
    assert (await fresh(younger)).reserved_host_id == host.pk + other.pk - kept


async def test_there_is_no_reservation_before_the_set_wait() -> None:
    await make_host(max_concurrent_jobs=0)
    host = await make_host(max_concurrent_jobs=1)
    await make_job(host=host, status="running")
    (job,) = await submit()
    await a_pass()
    assert (await fresh(job)).reserved_host_id is None


async def test_a_pass_that_had_enough_makes_no_second_reservation(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await make_host(max_concurrent_jobs=1)
    blocker = await make_job(host=host, status="running")
    (old,) = await submit(memory_limit=70)
    await a_pass()
    assert (await fresh(old)).reserved_host_id == host.pk
    await submit(3, memory_limit=71, priority=1)
    monkeypatch.setattr(routing_pass, "MOST_PLACED", 2)
    for _ in range(3):
        await a_pass()
    assert await ContainerJob.objects.exclude(reserved_host=None).acount() == 1
    assert len(await threads.read(states)) == 1
    await ContainerJob.objects.filter(pk=blocker.pk).aupdate(status="succeeded")
    for _ in range(3):
        await a_pass()
    assert await ContainerJob.objects.filter(status="routed").acount() == 1


async def test_a_job_outlives_the_host_that_kept_room_for_it(impatient: None) -> None:
    host = await make_host(max_concurrent_jobs=1)
    blocker = await make_job(host=host, status="running")
    (job,) = await submit()
    await a_pass()
    await ContainerJob.objects.filter(pk=blocker.pk).aupdate(status="succeeded", host=None)
    await write_directly(host_changes.delete_hosts, (host.pk, None))
    assert (await kinds(job))[-1] == "host_released"
    other = await make_host()
    await a_pass()
    assert ((await fresh(job)).status, (await fresh(job)).host_id) == ("routed", other.pk)


async def test_a_class_is_known_by_the_key_that_its_jobs_carry() -> None:
    await make_host(max_concurrent_jobs=5)
    jobs_of_before = [await make_job() for _ in range(2)]
    await ContainerJob.objects.aupdate(class_key="given by an older version")
    (new,) = await submit()
    assert [(await fresh(job)).status for job in (*jobs_of_before, new)] == ["routed"] * 3


# ------------------------------------------------------------------ bounds and moments


async def test_what_one_pass_leaves_is_routed_by_the_next_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing_pass, "MOST_RECORDED", 3)
    await make_host(max_concurrent_jobs=50, config={"accept": "any", "run_ms": 60_000})
    distinct = [ContainerJobFactory.build(memory_limit=64 + number) for number in range(12)]
    answers = await service.process.writer.write(jobs.submit, jobs.Submission(distinct))
    assert [job.status for job in answers] == ["routed"] * 3 + ["pending"] * 9
    await eventually(_nothing_waits, 10)
    assert await RoutingDecision.objects.exclude(host_id=None).acount() == 12


async def test_a_pass_that_had_enough_lets_no_new_job_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    await make_host(max_concurrent_jobs=50)
    old = [await make_job(memory_limit=64 + number) for number in range(4)]
    monkeypatch.setattr(routing_pass, "MOST_RECORDED", 2)
    (new,) = await submit(memory_limit=200)
    assert [(await fresh(job)).status for job in (*old, new)] == ["routed", "routed", "pending", "pending", "pending"]


async def _nothing_waits() -> bool:
    return not await ContainerJob.objects.filter(status="pending").aexists()


async def test_a_moment_between_a_pass_and_the_look_ahead_is_not_forgotten() -> None:
    began = timezone.now()
    job = await make_job(not_before=began + timedelta(milliseconds=1))
    await eventually(lambda: timezone.now() > job.not_before)
    assert await threads.read(pending.next_change, began) == job.not_before


async def test_a_back_off_waits_for_nothing_else() -> None:
    await make_host(max_concurrent_jobs=0)
    await submit()
    await make_job(not_before=timezone.now() + timedelta(hours=1))
    found = await threads.read(pending.groups)
    assert [(group.verdict, group.rejections, group.jobs) for group in found] == [
        ("NEVER", [("SLOTS", 1)], 1),
        ("NOT_NOW", [], 1),
    ]


def test_finding_what_waits_needs_no_statistics(db: None) -> None:
    """Just after a batch PostgreSQL knows nothing of it, and must not read a class's jobs once for every class."""
    if connection.vendor != "postgresql":
        return
    built = [ContainerJobFactory.build(memory_limit=64 + number) for number in range(3000)]
    commit_one(jobs.submit, jobs.Submission(built))
    with CaptureQueriesContext(connection) as captured:
        assert len(pending.heads(timezone.now())) > 2000
    (heads,) = [query["sql"] for query in captured if "RECURSIVE" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute("SET enable_sort = off; SET enable_seqscan = off; SET enable_bitmapscan = off")
        cursor.execute("EXPLAIN " + heads)
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("RESET enable_sort; RESET enable_seqscan; RESET enable_bitmapscan")
    assert "job_waiting" in plan
    assert "job_status" not in plan


# ------------------------------------------------------------------ ejection


async def fail_launches(host: ExecutorHost, count: int) -> None:
    for _ in range(count):
        job = await make_job(host=host, status="launching", lease_epoch=1)
        await write_directly(transitions.host_failed, (Fence(job.pk, 1), HostFault("no space left", retries=9)))
        await ContainerJob.objects.filter(pk=job.pk).aupdate(status="cancelled")


async def test_a_host_whose_launches_keep_failing_is_left_alone_for_a_while() -> None:
    broken, sound = await make_host(), await make_host(max_concurrent_jobs=1)
    await fail_launches(broken, 4)
    assert not await RoutingEvent.objects.filter(kind=EventKind.HOST_EJECTED).aexists()
    await fail_launches(broken, 1)
    event = await RoutingEvent.objects.aget(kind=EventKind.HOST_EJECTED)
    assert event.message == "5 launches in a row failed; ejected for 30 s. no space left"
    placed, left = await submit(2)
    assert (placed.host_id, left.status) == (sound.pk, "pending")
    refusal = await QueueRefusal.objects.aget(class_key=left.class_key)
    assert refusal.rejections == [["EJECTED", 1], ["SLOTS", 1]]
    until = (await ExecutorHost.objects.aget(pk=broken.pk)).ejected_until
    assert await threads.read(pending.next_change, timezone.now()) == until
    await fail_launches(broken, 5)
    again = (await ExecutorHost.objects.aget(pk=broken.pk)).ejected_until
    assert again - until > timedelta(seconds=29), "longer each time"


async def test_the_last_usable_host_of_its_kind_is_never_ejected() -> None:
    only = await make_host()
    await make_host(is_active=False)
    await make_host(executor_type="docker")
    await fail_launches(only, 12)
    assert (await ExecutorHost.objects.aget(pk=only.pk)).ejected_until is None
    spare = await make_host()
    await fail_launches(only, 1)
    assert (await ExecutorHost.objects.aget(pk=only.pk)).ejected_until is not None
    assert [host.ejected for host in await threads.read(states) if host.id == only.pk] == [True]
    await ExecutorHost.objects.filter(pk=spare.pk).aupdate(is_draining=True)
    assert not any(host.ejected for host in await threads.read(states)), "now it is the last again"


async def test_a_launch_that_succeeds_is_forgiveness(service: Service) -> None:
    host = await make_host()
    await make_host()
    await fail_launches(host, 4)
    job = await make_job(host=host, status="launching", lease_epoch=1)
    await write_directly(transitions.started, (Fence(job.pk, 1), timezone.now()))
    assert (await ExecutorHost.objects.aget(pk=host.pk)).launch_failures == 0
    await fail_launches(host, 5)
    assert (await ExecutorHost.objects.aget(pk=host.pk)).ejected_until is not None
    await service.hosts.resume(host.pk, Actor("test"))
    assert (await ExecutorHost.objects.aget(pk=host.pk)).ejected_until is None, "resumed by hand"


# ------------------------------------------------------------------ records


async def test_a_decision_still_shows_hosts_that_were_renamed_or_deleted_since() -> None:
    chosen = await make_host(name="chosen")
    gone = await make_host(name="gone", is_active=False)
    (job,) = await submit()
    (refused,) = await submit(memory_limit=65, host_selector={"gpu": "yes"})
    await ExecutorHost.objects.filter(pk=chosen.pk).aupdate(name="renamed", region="mars", max_concurrent_jobs=0)
    await ExecutorHost.objects.filter(pk=gone.pk).adelete()
    for entry in (job, refused):
        decision = await RoutingDecision.objects.aget(job_id=entry.pk)
        recorded = (await threads.read(decisions.evaluations, [decision.evaluation_id]))[decision.evaluation_id]
        assert [found.host_name for found in verdicts(recorded.evaluation, decision.host_id, 0, 9)] == [
            "chosen",
            "gone",
        ]
        assert decisions.replay(decision, recorded) == "SAME"
    other = recorded._replace(algorithm=1)
    assert decisions.replay(decision, other) == "OTHER_VERSION"
    changed = recorded.evaluation._replace(
        hosts=tuple(h._replace(labels={"gpu": "yes"}) for h in recorded.evaluation.hosts)
    )
    assert decisions.replay(decision, recorded._replace(evaluation=changed)) == "DIFFERENT"


async def test_all_decisions_of_a_mixed_batch_replay() -> None:
    for number in range(20):
        await make_host(routing_weight=number * 10, max_concurrent_jobs=3, region="eu" if number % 2 else "us")
    fresh_jobs = [
        ContainerJobFactory.build(strategy=strategy, region_preference=region, priority=number % 3)
        for number, (strategy, region) in enumerate(
            [("weighted", ""), ("balanced", "eu"), ("packed", "us"), ("weighted", "eu")] * 20
        )
    ]
    await write_directly(jobs.submit, jobs.Submission(fresh_jobs))
    rows = [row async for row in RoutingDecision.objects.all()]
    recorded = await threads.read(decisions.evaluations, {row.evaluation_id for row in rows})
    assert len(rows) == 80
    assert {decisions.replay(row, recorded[row.evaluation_id]) for row in rows} == {"SAME"}
    assert await RoutingFleet.objects.acount() == 1
    assert Counter(row.host_id is None for row in rows) == {False: 60, True: 20}


async def test_evaluations_are_kept_for_their_time_and_reasons_for_ever() -> None:
    await make_host()
    (job,) = await submit()
    await ExecutorHost.objects.aupdate(region="elsewhere")
    (later,) = await submit()
    assert await RoutingFleet.objects.acount() == 2
    old = await RoutingDecision.objects.aget(job_id=job.pk)
    month_ago = timezone.now() - timedelta(days=30)
    await RoutingEvaluation.objects.filter(pk=old.evaluation_id).aupdate(created_at=month_ago)
    assert await write_directly(decisions.delete_old, timedelta(days=29)) is False
    assert await threads.read(decisions.evaluations, [old.evaluation_id]) == {}
    assert decisions.replay(old, None) == "EXPIRED"
    assert old.reason == "The only choice; 1 of 1 hosts fit."
    kept = await RoutingDecision.objects.aget(job_id=later.pk)
    assert kept.evaluation_id in await threads.read(decisions.evaluations, [kept.evaluation_id])
    assert await RoutingFleet.objects.acount() == 1


def test_records_are_small(db: None) -> None:
    """Under 300 bytes a job in a batch of 10,000 over 1,000 hosts, and 8 kB for a single decision."""
    built = [
        ExecutorHostFactory.build(
            pk=number, name=f"host-{number:05}", routing_weight=number * 37 % 1000, max_concurrent_jobs=20 + number % 7,
            region=("eu", "us")[number % 2], labels={"disk": "ssd"} if number % 3 else {}, node="elsewhere",
        )
        for number in range(1, 1001)
    ]  # fmt: skip
    bulk.insert(bulk.rows_of(ExecutorHost, built))
    before = decision_bytes()
    commit_one(jobs.submit, jobs.Submission([ContainerJobFactory.build() for _ in range(10_000)]))
    batch = decision_bytes() - before
    assert RoutingDecision.objects.exclude(host_id=None).count() == 10_000
    assert batch / 10_000 < 300
    commit_one(jobs.submit, jobs.Submission([ContainerJobFactory.build()]))
    last = RoutingEvaluation.objects.latest("pk")
    fleet = RoutingFleet.objects.get()
    assert len(bytes(last.record)) + len(bytes(fleet.record)) < 8000


def decision_bytes() -> int:
    """What the tables of decisions and their indexes take on disk."""
    tables = [model._meta.db_table for model in (RoutingDecision, RoutingEvaluation, RoutingFleet)]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT SUM(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name", [tables]
            )
        else:
            names = ", ".join(["%s"] * len(tables))
            cursor.execute(
                f"SELECT SUM(pgsize) FROM dbstat WHERE name IN "
                f"(SELECT name FROM sqlite_master WHERE tbl_name IN ({names}))",
                tables,
            )
        return int(cursor.fetchone()[0])
