"""The fleet view against the rows: several views, transactions that overlap, end in another order or are rolled back."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, transaction
from django.db.models import Count, Sum
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from container_manager.domain.lifecycle import ACTIVE
from container_manager.models import ContainerJob, ExecutorHost, FleetChange, RoutingDecision, RoutingEvaluation
from container_manager.observability import metrics
from container_manager.routing.types import HostState
from container_manager.store import bulk, decisions, hosts, jobs, retention, threads
from container_manager.store.fleet import FleetView, deciding_view, states
from container_manager.store.transaction import Transaction, commit_one
from tests.factories import ContainerJobFactory, ExecutorHostFactory

STATUSES = ["pending", "routed", "launching", "running", "succeeded", "failed"]
VIEWS = st.integers(0, 1)
INDEX = st.integers(0, 30)


def rows() -> list[HostState]:
    """All hosts from their rows and those of the jobs, without the view."""
    now, found = timezone.now(), []
    every = list(ExecutorHost.objects.order_by("pk"))

    def serves(host: ExecutorHost) -> bool:
        ejected = host.ejected_until is not None and host.ejected_until > now
        return host.is_active and not host.is_draining and host.health_status == "healthy" and not ejected

    for host in every:
        active = ContainerJob.objects.filter(host=host, status__in=ACTIVE)
        used = active.aggregate(jobs=Count("pk"), memory=Sum("memory_limit"), cpu=Sum("cpu_limit"))
        waiting = ContainerJob.objects.filter(reserved_host=host, status="pending")
        host.used_jobs, host.used_memory_mb = used["jobs"], used["memory"] or 0
        host.used_cpu_millis = round((used["cpu"] or 0) * 1000)
        host.ejected = bool(host.ejected_until and host.ejected_until > now) and any(
            serves(other) for other in every if other.pk != host.pk and other.executor_type == host.executor_type
        )
        host.cooling = bool(host.cooldown_until and host.cooldown_until > now)
        host.reserved_priority = max(waiting.values_list("priority", flat=True), default=None)
        found.append(hosts.state(host))
    return found


class RolledBackError(Exception):
    """Ends a transaction of the test."""


class Views(RuleBasedStateMachine):
    """Two views of one database, as two processes have them, and a third transaction that ends later than others."""

    def __init__(self) -> None:
        super().__init__()
        self.views = [FleetView(), FleetView()]
        self.other = ThreadPoolExecutor(1)
        self.held: tuple[Any, int] | None = None

    def teardown(self) -> None:
        self.end_the_other(commits=False)
        self.other.submit(lambda: connection.close()).result()  # noqa: PLW0108 - the connection of that thread
        self.other.shutdown()
        ContainerJob.objects.all().delete()
        ExecutorHost.objects.all().delete()

    @initialize()
    def begin(self) -> None:
        # Its draws begin again, so that a failing example fails again.
        deciding_view._fleet = None
        ExecutorHostFactory()
        ExecutorHostFactory()

    def job(self, index: int) -> ContainerJob | None:
        found = list(ContainerJob.objects.order_by("pk").exclude(pk=self.held[1] if self.held else 0))
        return found[index % len(found)] if found else None

    def host(self, index: int) -> ExecutorHost | None:
        found = list(ExecutorHost.objects.order_by("pk"))
        return found[index % len(found)] if found else None

    def change_job(self, index: int, **values: Any) -> None:
        if (job := self.job(index)) is not None:
            ContainerJob.objects.filter(pk=job.pk).update(**values)

    @rule(index=INDEX, status=st.sampled_from(STATUSES), memory=st.sampled_from([None, 6, 100]))
    def add_job(self, index: int, status: str, memory: int | None) -> None:
        host = None if status == "pending" else self.host(index)
        ContainerJobFactory(host=host, status=status, memory_limit=memory, cpu_limit=0.25)

    @rule(index=INDEX, status=st.sampled_from(STATUSES))
    def move_job(self, index: int, status: str) -> None:
        self.change_job(index, status=status)

    @rule(index=INDEX, place=INDEX)
    def route_job_elsewhere(self, index: int, place: int) -> None:
        self.change_job(index, host=self.host(place), status="routed")

    @rule(index=INDEX, place=INDEX, priority=st.integers(0, 3))
    def reserve(self, index: int, place: int, priority: int) -> None:
        self.change_job(index, status="pending", host=None, reserved_host=self.host(place), priority=priority)

    @rule(count=st.integers(1, 3))
    def submit(self, count: int) -> None:
        if self.held is None or connection.vendor == "postgresql":
            commit_one(jobs.submit, jobs.Submission(ContainerJobFactory.build_batch(count)))

    @precondition(lambda self: self.held is None)
    @rule(index=INDEX)
    def delete_job(self, index: int) -> None:
        if (job := self.job(index)) is not None:
            job.delete()

    @rule()
    def add_host(self) -> None:
        ExecutorHostFactory()

    @rule(index=INDEX, values=st.sampled_from([
        {"routing_weight": 7}, {"is_draining": True}, {"is_active": False}, {"health_status": "unhealthy"},
        {"max_concurrent_jobs": 1}, {"max_cpu_cores": 1.5}, {"labels": {"a": "b"}}, {"health_latency_ms": 3.0},
    ]))  # fmt: skip
    def change_host(self, index: int, values: dict[str, Any]) -> None:
        ExecutorHost.objects.filter(pk=getattr(self.host(index), "pk", 0)).update(**values)

    @rule(
        index=INDEX, field=st.sampled_from(["ejected_until", "cooldown_until"]), ends=st.sampled_from([-60, 3600, None])
    )
    def avoid_host(self, index: int, field: str, ends: int | None) -> None:
        until = None if ends is None else timezone.now() + timedelta(seconds=ends)
        ExecutorHost.objects.filter(pk=getattr(self.host(index), "pk", 0)).update(**{field: until})

    @precondition(lambda self: self.held is None)
    @rule(index=INDEX)
    def delete_host(self, index: int) -> None:
        if (host := self.host(index)) is not None:
            host.delete()

    @precondition(lambda self: self.held is None and connection.vendor == "postgresql")
    @rule(index=INDEX, status=st.sampled_from(STATUSES))
    def start_another_transaction(self, index: int, status: str) -> None:
        job = self.job(index)
        if job is None or job.status == "pending":
            # Routing would wait for its row.
            return

        def work() -> None:
            transaction.set_autocommit(False)
            ContainerJob.objects.filter(pk=job.pk).update(status=status)

        self.other.submit(work).result()
        self.held = (self.other, job.pk)

    @precondition(lambda self: self.held is not None)
    @rule(commits=st.booleans())
    def end_the_other(self, commits: bool) -> None:
        def work() -> None:
            (transaction.commit if commits else transaction.rollback)()
            transaction.set_autocommit(True)

        if self.held is not None:
            self.other.submit(work).result()
            self.held = None

    @rule(
        which=VIEWS, index=INDEX, status=st.sampled_from(STATUSES), commits=st.booleans(),
        happens=st.sets(st.sampled_from(["a host is added", "a host is ejected", "a later transaction ends first"])),
    )  # fmt: skip
    def look_inside_a_transaction(self, which: int, index: int, status: str, happens: set[str], commits: bool) -> None:
        looking = self.views[which]
        try:
            with transaction.atomic():
                looking.begin()
                if "a host is added" in happens:
                    ExecutorHostFactory()
                self.change_job(index, status=status)
                if "a host is ejected" in happens:
                    self.avoid_host(index, "ejected_until", 3600)
                if "a later transaction ends first" in happens:
                    self.end_a_later_transaction()
                assert looking.states() == rows()
                fleet, _ = looking.deciding()
                assert fleet.hosts == rows()
                for at, host in enumerate(fleet.hosts[:2]):
                    # What a decision would occupy, and then is not written.
                    fleet.replace(at, host._replace(jobs=host.jobs + 1))
                assert looking.deciding()[0].hosts == rows()
                if not commits:
                    raise RolledBackError
        except RolledBackError:
            pass

    def end_a_later_transaction(self) -> None:
        def work() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT txid_current()")

        if self.held is None and connection.vendor == "postgresql":
            self.other.submit(work).result()

    @rule(which=VIEWS)
    def restart(self, which: int) -> None:
        self.views[which] = FleetView()

    @rule(which=VIEWS)
    def prove(self, which: int) -> None:
        assert self.views[which].differences() == 0

    @rule()
    def prune(self) -> None:
        for one in self.views:
            one.states()
        if self.held is None:
            retention.delete_fleet_changes(Transaction(), [timedelta(0)])

    @rule(which=VIEWS)
    def the_view_equals_the_rows(self, which: int) -> None:
        assert self.views[which].states() == rows()

    @invariant()
    def one_view_always_does(self) -> None:
        assert self.views[0].states() == rows()


@pytest.mark.django_db(transaction=True)
def test_each_view_equals_the_rows_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("container_manager.store.fleet.secrets.randbits", lambda _: 7)
    checks = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Views, settings=checks)


@pytest.fixture
def broken(transactional_db: None) -> Callable[[str], None]:
    """Let the feed miss what a statement changes."""

    def miss(sql: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)
        FleetChange.objects.filter(pk=FleetChange.objects.latest("pk").pk).delete()

    return miss


def test_a_view_that_is_wrong_is_found_and_read_again(broken: Callable[[str], None]) -> None:
    host = ExecutorHostFactory()
    ContainerJobFactory(host=host, status="running", memory_limit=64, cpu_limit=0.1)
    looking = FleetView()
    assert [state.jobs for state in looking.states()] == [1]
    broken("UPDATE container_manager_containerjob SET status = 'succeeded'")
    ContainerJobFactory()
    before = metrics.FLEET_VIEW_ERRORS._value.get()
    assert looking.differences() == 1
    assert metrics.FLEET_VIEW_ERRORS._value.get() == before + 1
    assert [state.jobs for state in looking.states()] == [0]
    broken("UPDATE container_manager_executorhost SET routing_weight = 5")
    ContainerJobFactory(host=host, status="running")
    assert (looking.differences(), looking.states()[0].weight) == (1, 5)


def test_a_view_of_a_database_that_was_emptied_starts_again(transactional_db: None) -> None:
    looking = FleetView()
    host = ExecutorHostFactory()
    assert [state.id for state in looking.states()] == [host.pk]
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM container_manager_executorhost")
        cursor.execute("DELETE FROM container_manager_fleetchange")
    assert looking.states() == []


async def decide(count: int) -> list[ContainerJob]:
    return [
        await threads.write(commit_one, jobs.submit, jobs.Submission([ContainerJobFactory.build()]))
        for _ in range(count)
    ]


@pytest.mark.django_db(transaction=True)
async def test_evaluations_are_recorded_as_differences_and_decide_the_same_again() -> None:
    for number in range(40):
        await sync_to_async(ExecutorHostFactory)(name=f"number-{number}", routing_weight=number + 1)
    await decide(30)
    stored = [row async for row in RoutingEvaluation.objects.order_by("pk")]
    whole = [row for row in stored if row.key_id is None]
    assert len(whole) < 6
    assert len(stored) == 30
    assert max(len(row.record) for row in stored if row.key_id) < min(len(row.record) for row in whole)
    await ExecutorHost.objects.filter(name="number-7").aupdate(routing_weight=500)
    await decide(2)
    assert [row.key_id async for row in RoutingEvaluation.objects.order_by("-pk")[:2]] == [
        (await RoutingEvaluation.objects.alatest("pk")).pk - 1, None,
    ], "a changed weight is in no difference"  # fmt: skip
    found = [row async for row in RoutingDecision.objects.order_by("-pk")]
    recorded = await threads.read(decisions.evaluations, {decision.evaluation_id for decision in found})
    assert {decisions.replay(decision, recorded[decision.evaluation_id]) for decision in found} == {"SAME"}
    usage = [sum(host.jobs for host in recorded[row.evaluation_id].evaluation.hosts) for row in reversed(found)]
    assert usage == list(range(32)), "each has the usage of its own moment"


@pytest.mark.django_db(transaction=True)
async def test_a_key_stays_as_long_as_others_refer_to_it() -> None:
    await sync_to_async(ExecutorHostFactory.create_batch)(8)
    await decide(3)
    key, *others = [row async for row in RoutingEvaluation.objects.order_by("pk")]
    assert {row.key_id for row in others} == {key.pk}
    old = timezone.now() - timedelta(days=100)
    await RoutingEvaluation.objects.filter(pk__in=[key.pk, others[0].pk]).aupdate(created_at=old)
    await threads.write(commit_one, decisions.delete_old, timedelta(days=90))
    assert {row.pk async for row in RoutingEvaluation.objects.all()} == {key.pk, others[1].pk}
    await RoutingEvaluation.objects.aupdate(created_at=old)
    await threads.write(commit_one, decisions.delete_old, timedelta(days=90))
    assert not await RoutingEvaluation.objects.aexists()


@pytest.mark.django_db(transaction=True)
async def test_a_key_of_a_transaction_that_was_rolled_back_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    await sync_to_async(ExecutorHostFactory.create_batch)(8)
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise RuntimeError("the commit fails")

        patched.setattr("container_manager.store.transaction._write", fail)
        with pytest.raises(RuntimeError):
            await decide(1)
    await decide(2)
    kept = [row async for row in RoutingEvaluation.objects.order_by("pk")]
    assert [row.key_id for row in kept] == [None, kept[0].pk]
    assert sum(state.jobs for state in await threads.read(states)) == 2


def test_a_query_that_fails_leaves_no_half_of_the_changes(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ExecutorHostFactory()
    looking = FleetView()
    looking.states()
    ExecutorHost.objects.update(routing_weight=3)
    ContainerJobFactory(host=host, status="running", memory_limit=64, cpu_limit=0.1)

    def fail(_: object) -> None:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr("container_manager.store.fleet.feed.read_hosts", fail)
        with pytest.raises(OperationalError):
            looking.states()
    assert [(state.weight, state.jobs, state.memory) for state in looking.states()] == [(3, 1, 64)]


def test_what_a_transaction_changes_after_it_was_looked_at_counts(transactional_db: None) -> None:
    host = ExecutorHostFactory()
    one, other = ContainerJobFactory.create_batch(2, memory_limit=64, cpu_limit=0.1)
    looking = FleetView()
    looking.states()

    def end_a_later_transaction() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT txid_current()")
        connection.close()

    with transaction.atomic():
        looking.begin()
        ContainerJob.objects.filter(pk=one.pk).update(status="running", host=host)
        if connection.vendor == "postgresql":
            # Then the snapshot tells of this transaction, too, as of one that has ended.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(end_a_later_transaction).result()
        assert [state.jobs for state in looking.states()] == [1]
        ContainerJob.objects.filter(pk=other.pk).update(status="running", host=host)
    assert [state.jobs for state in looking.states()] == [2]


@pytest.mark.django_db(transaction=True)
async def test_a_reader_that_has_waited_for_another_one_sees_what_was_committed_before_it_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = FleetView()
    host = await sync_to_async(ExecutorHostFactory)(region="old")
    await threads.read(view.states)
    together, reading, may_go_on = bulk.together, threading.Event(), threading.Event()

    def fails(*queries: bulk.Query) -> list[list[tuple[Any, ...]]]:
        monkeypatch.setattr(bulk, "together", together)
        reading.set()
        may_go_on.wait(10)
        raise OperationalError("it took too long")

    monkeypatch.setattr(bulk, "together", fails)
    first = asyncio.create_task(threads.read(view.states))
    await asyncio.to_thread(reading.wait, 10)
    await ExecutorHost.objects.filter(pk=host.pk).aupdate(region="new")
    others = [asyncio.create_task(threads.read(view.of, [host.pk])) for _ in range(3)]
    await asyncio.sleep(0)
    may_go_on.set()
    with pytest.raises(OperationalError):
        await first
    assert [(await other)[host.pk].region for other in others] == ["new"] * 3
