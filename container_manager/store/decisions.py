"""Decisions and their evaluations: storing, reading and replaying them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from django.db.models import Exists, OuterRef, Q

from container_manager import clock
from container_manager.models import ContainerJob, RoutingDecision, RoutingEvaluation, RoutingFleet
from container_manager.routing import checks, router
from container_manager.routing.types import CheckResult, Decision, Evaluation, Verdict
from container_manager.store import bulk, records
from container_manager.store.transaction import Transaction, under_routing_lock

DELETED_AT_ONCE = 1000
"""Evaluations that one transaction deletes."""


class HostVerdict(NamedTuple):
    """One host for one job, with every check."""

    host_id: int
    host_name: str
    verdict: Verdict
    checks: Sequence[CheckResult]
    weight: int
    chosen: bool


def record(decided: Sequence[tuple[int, int, Decision]], ids: "Ids") -> list[bulk.Rows]:
    """Rows for decisions on one fleet, given as (job id, attempt, decision). A class shares one evaluation."""
    if not decided:
        return []
    evaluations = {id(decision.evaluation): decision.evaluation for _, _, decision in decided}
    now = bulk.as_moment(clock.now())
    evaluation_ids = dict(zip(evaluations, ids.evaluations, strict=True))
    packed = [
        (evaluation_ids[key], now, ids.fleet, records.pack(evaluation, ids.hosts[key]))
        for key, evaluation in evaluations.items()
    ]
    counts = {key: bulk.as_json(list(e.rejections().items())) for key, e in evaluations.items()}
    rows = []
    for pk, (job_id, attempt, decision) in zip(ids.decisions, decided, strict=True):
        host, key = decision.host, id(decision.evaluation)
        chosen = (host.id, host.name, host.executor_type, None) if host else (None, "", "", counts[key])
        how = (decision.evaluation.requirements.strategy, decision.reason)
        rows.append((pk, job_id, attempt, *chosen, *how, now, evaluation_ids[key], decision.position))
    return [
        bulk.Rows(RoutingEvaluation, ("id", "created_at", "fleet_id", "record"), packed),
        bulk.Rows(RoutingDecision, _COLUMNS, rows),
    ]


class Ids(NamedTuple):
    """Ids for new jobs and for the rows of decisions on one fleet."""

    jobs: Sequence[int]
    evaluations: Sequence[int]
    decisions: Sequence[int]
    fleet: int
    hosts: Mapping[int, records.Columns]
    """The hosts as columns, by `id()` of the evaluation."""


def new_ids(decisions: Iterable[Decision], jobs: int = 0) -> Ids:
    """Allocate ids for the rows of decisions on one fleet and for `jobs` new jobs."""
    taken = list(decisions)
    evaluations = {id(decision.evaluation): decision.evaluation for decision in taken}
    counts = {ContainerJob: jobs, RoutingEvaluation: len(evaluations), RoutingDecision: len(taken)}
    hosts = {key: records.by_field(evaluation.hosts) for key, evaluation in evaluations.items()}
    stable = records.stable_fields(next(iter(hosts.values()), {}))
    digest = hashlib.blake2b(stable, digest_size=16).hexdigest()
    ids = bulk.new_ids(counts, {RoutingFleet: digest} if taken else None)
    fleet = ids[RoutingFleet][0] if ids.get(RoutingFleet) else 0
    if taken and not fleet:
        fleet = RoutingFleet.objects.create(digest=digest, record=records.pack_fleet(stable)).pk
    return Ids(ids[ContainerJob], ids[RoutingEvaluation], ids[RoutingDecision], fleet, hosts)


_COLUMNS = (
    "id",
    "job_id",
    "attempt",
    "host_id",
    "host_name",
    "executor_type",
    "rejections",
    "strategy",
    "reason",
    "decided_at",
    "evaluation_id",
    "position",
)


def matching(where: Q, limit: int) -> list[RoutingDecision]:
    """Decisions, newest first."""
    return list(RoutingDecision.objects.filter(where).order_by("-pk")[:limit])


def by_ids(ids: Iterable[int]) -> dict[int, RoutingDecision]:
    """Decisions by id; those that do not exist are left out."""
    return RoutingDecision.objects.in_bulk(list(ids))


def of_jobs(job_ids: Iterable[int]) -> Mapping[int, list[RoutingDecision]]:
    """The decisions of each job, newest first."""
    found: dict[int, list[RoutingDecision]] = {job_id: [] for job_id in job_ids}
    for decision in RoutingDecision.objects.filter(job_id__in=found).order_by("-pk"):
        found[decision.job_id].append(decision)
    return found


def evaluations(ids: Iterable[int]) -> dict[int, records.Recorded]:
    """Evaluations by id; those that have been deleted are left out."""
    rows = list(RoutingEvaluation.objects.filter(pk__in=list(ids)).values_list("pk", "fleet_id", "record"))
    packed = RoutingFleet.objects.filter(pk__in={fleet for _, fleet, _ in rows}).values_list("pk", "record")
    fleets = {pk: records.unpack_fleet(bytes(record)) for pk, record in packed}
    # An evaluation whose fleet is gone was deleted between the two queries.
    return {pk: records.unpack(fleets[fleet], bytes(record)) for pk, fleet, record in rows if fleet in fleets}


def verdicts(evaluation: Evaluation, chosen: int | None, after: int, limit: int) -> list[HostVerdict]:
    """The hosts of an evaluation with every check, the chosen one first, from index `after`."""
    hosts = evaluation.hosts
    first = [i for i, host in enumerate(hosts) if host.id == chosen]
    order = first + [i for i in range(len(hosts)) if i not in first] if first else range(len(hosts))
    return [verdict(evaluation, i, hosts[i].id == chosen) for i in order[after : after + limit]]


def verdict(evaluation: Evaluation, i: int, chosen: bool) -> HostVerdict:
    """One host of an evaluation with every check."""
    host, results = evaluation.hosts[i], evaluation.results(i)
    return HostVerdict(
        host_id=host.id,
        host_name=host.name,
        verdict=Verdict(max(results, default=0)),
        checks=checks.explain(host, evaluation.requirements, evaluation.codes, results),
        weight=host.weight,
        chosen=chosen,
    )


def replay(decision: RoutingDecision, recorded: records.Recorded | None) -> str:
    """Decide again from the record.

    Returns SAME, DIFFERENT, OTHER_VERSION when the algorithm has changed since, or EXPIRED when the record was deleted.
    """
    if recorded is None:
        return "EXPIRED"
    before = recorded.evaluation
    # Checks that were added since are left out, so that what was recorded before can still be decided again.
    again = router.evaluate(before.hosts, before.requirements, before.seed, before.codes)
    if recorded.algorithm != router.ALGORITHM or again.codes != before.codes:
        return "OTHER_VERSION"
    if decision.host_id is None:
        same = not again.feasible()
    elif before.seed is None:
        same = decision.host_id in {again.hosts[at].id for at in again.feasible()}
    else:
        placed = router.choose(again, decision.position + 1)
        same = len(placed) > decision.position and again.hosts[placed[-1]].id == decision.host_id
    return "SAME" if same and again.columns == before.columns else "DIFFERENT"


@under_routing_lock
def delete_old(tx: Transaction, items: Sequence[timedelta]) -> list[bool]:  # noqa: ARG001
    """Delete some of the evaluations that are older than this; answers whether there may be more."""
    oldest = clock.now() - min(items)
    old = RoutingEvaluation.objects.filter(created_at__lt=oldest).order_by("created_at").values_list("pk", "fleet_id")
    rows = list(old[:DELETED_AT_ONCE])
    RoutingEvaluation.objects.filter(pk__in=[pk for pk, _ in rows]).delete()
    fleets = {fleet for _, fleet in rows}
    used = Exists(RoutingEvaluation.objects.filter(fleet_id=OuterRef("pk")))
    RoutingFleet.objects.filter(~used, pk__in=fleets).delete()
    return [len(rows) == DELETED_AT_ONCE] * len(items)
