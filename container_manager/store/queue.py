"""What waits, why, and what would become of it: reading only."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db.models import Count, Min, Q
from django.utils import timezone

from container_manager import lifecycle
from container_manager.models import ContainerJob, ExecutorHost
from container_manager.routing import router
from container_manager.routing.advice import advise
from container_manager.routing.types import Decision, HostState, JobRequirements, Suggestion
from container_manager.store import decisions as decision_store
from container_manager.store import hosts as host_store
from container_manager.store.routing import Pass
from container_manager.store.waiting import PENDING, refusals

NOTHING_ELSE: tuple[str, tuple[tuple[str, int], ...]] = ("NOT_NOW", ())
"""What jobs wait for that no check refuses: the end of their back-off, or their turn."""


class Waiting(NamedTuple):
    """Jobs that wait for the same: how many, since when the oldest, and with which refusal."""

    verdict: str
    rejections: list[tuple[str, int]]
    jobs: int
    oldest: datetime


def waiting() -> list[Waiting]:
    """What waits, by what it waits for, the largest group first."""
    now = timezone.now()
    pending = ContainerJob.objects.filter(PENDING)
    ready = pending.filter(Q(not_before=None) | Q(not_before__lte=now)).values_list("class_key")
    classes = list(ready.annotate(jobs=Count("pk"), oldest=Min("pk")))
    heads = ContainerJob.objects.only("submitted_at").in_bulk([oldest for _, _, oldest in classes])
    why = refusals(key for key, _, _ in classes)
    groups: defaultdict[tuple[str, tuple[tuple[str, int], ...]], list[tuple[int, datetime]]] = defaultdict(list)
    for key, jobs, oldest in classes:
        known = why.get(key)
        what = (known.verdict, tuple((code, count) for code, count in known.rejections)) if known else NOTHING_ELSE
        groups[what].append((jobs, heads[oldest].submitted_at))
    back_off = pending.filter(not_before__isnull=False, not_before__gt=now)
    backing_off = back_off.aggregate(jobs=Count("pk"), oldest=Min("submitted_at"))
    if backing_off["jobs"]:
        groups[NOTHING_ELSE].append((backing_off["jobs"], backing_off["oldest"]))
    found = [
        Waiting(verdict, list(rejections), sum(jobs for jobs, _ in members), min(oldest for _, oldest in members))
        for (verdict, rejections), members in groups.items()
    ]
    return sorted(found, key=lambda group: -group.jobs)


def active() -> int:
    """How many jobs hold room on a host."""
    return ContainerJob.objects.filter(status__in=lifecycle.ACTIVE).count()


def next_moment(since: datetime) -> datetime | None:
    """When, after `since`, time alone next changes what can be routed: a back-off, timeout, ejection, cooldown ends."""
    pending = ContainerJob.objects.filter(PENDING)
    moments = [
        pending.filter(not_before__isnull=False, not_before__gt=since).aggregate(at=Min("not_before"))["at"],
        pending.filter(queue_deadline__isnull=False).aggregate(at=Min("queue_deadline"))["at"],
        ExecutorHost.objects.filter(ejected_until__gt=since).aggregate(at=Min("ejected_until"))["at"],
        ExecutorHost.objects.filter(cooldown_until__gt=since).aggregate(at=Min("cooldown_until"))["at"],
    ]
    return min((moment for moment in moments if moment is not None), default=None)


def plan(fresh: Sequence[ContainerJob], hosts: Sequence[HostState]) -> list[Decision]:
    """What would be decided on these jobs if they were submitted to such a fleet."""
    decided = Pass(hosts, fresh, bounded=False).decisions()
    return [decided[-1 - index] for index in range(len(fresh))]


def advice(jobs: Iterable[JobRequirements]) -> dict[JobRequirements, list[Suggestion]]:
    """Single changes that would let such jobs run now."""
    hosts = host_store.snapshot()
    return {job: advise(hosts, job) for job in jobs}


def why_not(job: ContainerJob, host_id: int) -> decision_store.HostVerdict | None:
    """Every check of this host for this job, now; what the job itself holds there counts as free."""
    state = next((state for state in host_store.snapshot() if state.id == host_id), None)
    if state is None:
        return None
    needs = job.requirements()
    holds = job.host_id == host_id and job.status in lifecycle.ACTIVE
    if holds:
        state = state._replace(jobs=state.jobs - 1, memory=state.memory - needs.memory, cpu=state.cpu - needs.cpu)
    return decision_store.verdict(router.evaluate([state], needs), 0, holds)
