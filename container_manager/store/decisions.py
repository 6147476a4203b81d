"""Decisions and their evaluations: storing, reading and replaying them."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

from django.db.models import Exists, OuterRef, Q

from container_manager import clock
from container_manager.database import on_commit
from container_manager.models import ContainerJob, RoutingDecision, RoutingEvaluation, RoutingFleet
from container_manager.routing import checks, router
from container_manager.routing.router import Fleet
from container_manager.routing.types import CheckResult, Decision, Evaluation, JobRequirements, Verdict
from container_manager.store import bulk, records
from container_manager.store.transaction import Transaction, under_routing_lock

MOST_KEYS, KEY_SECONDS, DIFFERENT_SHARE = 16, 3600.0, 4
"""How many evaluations of a fleet others refer to, for how long, and the share (1 in 4) of hosts that may differ."""

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


class _Key(NamedTuple):
    """A stored evaluation: the next ones of its class may store only how they differ from it."""

    id: int
    fleet_id: int
    evaluation: Evaluation
    made_at: float


class _Reference(NamedTuple):
    """The key of an evaluation, and the indexes of the hosts that differ."""

    key: _Key
    places: list[int]


_keys: WeakKeyDictionary[Fleet, dict[JobRequirements, _Key]] = WeakKeyDictionary()
"""The keys of the fleets that are kept, by class; the first was not used for the longest time."""


def _reference(fleet: Fleet | None, evaluation: Evaluation) -> _Reference | None:
    known = _keys.get(fleet, {}) if fleet is not None else {}
    key = known.pop(evaluation.requirements, None)
    if fleet is None or key is None or key.evaluation.version is None:
        return None
    changed = fleet.changed_since(key.evaluation.version, evaluation.version)
    if changed is None or time.monotonic() > key.made_at + KEY_SECONDS:
        return None
    before, now = key.evaluation.hosts, evaluation.hosts
    places = sorted(at for at in changed if before[at] is not now[at] and before[at] != now[at])
    if len(places) > len(now) // DIFFERENT_SHARE or not all(records.is_stable(before[at], now[at]) for at in places):
        return None
    known[evaluation.requirements] = key
    return _Reference(key, places)


class Ids(NamedTuple):
    """Ids for new jobs and for the rows of decisions on one fleet."""

    jobs: Sequence[int]
    evaluations: Sequence[int]
    decisions: Sequence[int]
    fleet_id: int
    hosts: Mapping[int, records.Columns]
    """The hosts as columns, by `id()` of the evaluations that are stored whole."""
    references: Mapping[int, _Reference]
    """The others."""
    fleet: Fleet | None


def new_ids(
    decisions: Iterable[Decision], jobs: int = 0, fleet: Fleet | None = None, at_hand: bulk.Ids | None = None
) -> Ids:
    """Allocate ids for the rows of decisions on one fleet and for `jobs` new jobs, unless they are at hand."""
    taken = list(decisions)
    evaluations = {id(decision.evaluation): decision.evaluation for decision in taken}
    counts = {ContainerJob: jobs, RoutingEvaluation: len(evaluations), RoutingDecision: len(taken)}
    references = {key: found for key, e in evaluations.items() if (found := _reference(fleet, e)) is not None}
    whole = {key: e.hosts for key, e in evaluations.items() if key not in references}
    # Many evaluations may share their hosts.
    columns = {at: records.by_field(states) for at, states in {id(states): states for states in whole.values()}.items()}
    hosts = {key: columns[id(states)] for key, states in whole.items()}
    if not hosts:
        ids = bulk.new_ids(counts, None, at_hand)
        return Ids(ids[ContainerJob], ids[RoutingEvaluation], ids[RoutingDecision], 0, hosts, references, fleet)
    stable = records.stable_fields(next(iter(hosts.values())))
    digest = hashlib.blake2b(stable, digest_size=16).hexdigest()
    ids = bulk.new_ids(counts, {RoutingFleet: digest}, at_hand)
    fleet_id = ids[RoutingFleet][0] if ids.get(RoutingFleet) else 0
    if not fleet_id:
        fleet_id = RoutingFleet.objects.create(digest=digest, record=records.pack_fleet(stable)).pk
    return Ids(ids[ContainerJob], ids[RoutingEvaluation], ids[RoutingDecision], fleet_id, hosts, references, fleet)


def record(tx: Transaction, decided: Sequence[tuple[int, int, Decision]], ids: Ids) -> None:
    """Add rows for decisions on one fleet, given as (job id, attempt, decision). A class shares one evaluation."""
    if not decided:
        return
    evaluations = {id(decision.evaluation): decision.evaluation for _, _, decision in decided}
    now = bulk.as_moment(clock.now())
    evaluation_ids = dict(zip(evaluations, ids.evaluations, strict=True))
    packed: list[tuple[object, ...]] = []
    keys: dict[JobRequirements, _Key] = {}
    for at, evaluation in evaluations.items():
        pk = evaluation_ids[at]
        if (found := ids.references.get(at)) is not None:
            differences = records.pack_differences(evaluation, found.places)
            packed.append((pk, now, found.key.fleet_id, found.key.id, differences))
        else:
            packed.append((pk, now, ids.fleet_id, None, records.pack(evaluation, ids.hosts[at])))
            keys[evaluation.requirements] = _Key(pk, ids.fleet_id, evaluation, time.monotonic())
    if ids.fleet is not None and keys:
        on_commit(partial(_keep, ids.fleet, keys))
    rows = []
    for pk, (job_id, attempt, decision) in zip(ids.decisions, decided, strict=True):
        host = decision.host
        chosen = (host.id, host.name, host.executor_type, None) if host else (None, "", "", _rejections(decision))
        how = (decision.evaluation.requirements.strategy, decision.reason)
        rows.append(
            (pk, job_id, attempt, *chosen, *how, now, evaluation_ids[id(decision.evaluation)], decision.position)
        )
    tx.rows += [
        bulk.Rows(RoutingEvaluation, ("id", "created_at", "fleet_id", "key_id", "record"), packed),
        bulk.Rows(RoutingDecision, _COLUMNS, rows),
    ]


def _rejections(decision: Decision) -> str:
    return bulk.as_json(list(decision.evaluation.rejections().items()))


def _keep(fleet: Fleet, keys: Mapping[JobRequirements, _Key]) -> None:
    known = _keys.setdefault(fleet, {})
    known.update(keys)
    while len(known) > MOST_KEYS:
        del known[next(iter(known))]


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
    rows = RoutingEvaluation.objects.in_bulk(list(ids))
    keys = RoutingEvaluation.objects.in_bulk([row.key_id for row in rows.values() if row.key_id is not None])
    packed = RoutingFleet.objects.filter(pk__in={row.fleet_id for row in rows.values()}).values_list("pk", "record")
    fleets = {pk: records.unpack_fleet(bytes(record)) for pk, record in packed}
    # An evaluation whose fleet or key is gone was deleted between the queries.
    whole = {
        pk: records.unpack(fleets[row.fleet_id], bytes(row.record))
        for pk, row in {**rows, **keys}.items()
        if row.key_id is None and row.fleet_id in fleets
    }
    different = {
        pk: records.unpack_differences(whole[row.key_id], bytes(row.record))
        for pk, row in rows.items()
        if row.key_id in whole
    }
    found = whole | different
    return {pk: found[pk] for pk in rows if pk in found}


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
    old = RoutingEvaluation.objects.filter(created_at__lt=oldest)
    needed = Exists(RoutingEvaluation.objects.filter(key_id=OuterRef("pk"), created_at__gte=oldest))
    # New evaluations may still refer to one that was made within this time.
    young = Q(key_id=None, created_at__gte=clock.now() - timedelta(seconds=2 * KEY_SECONDS))
    rows = list(
        old.exclude(needed).exclude(young).order_by("created_at").values_list("pk", "fleet_id")[:DELETED_AT_ONCE]
    )
    RoutingEvaluation.objects.filter(pk__in=[pk for pk, _ in rows]).delete()
    fleets = {fleet for _, fleet in rows}
    used = Exists(RoutingEvaluation.objects.filter(fleet_id=OuterRef("pk")))
    RoutingFleet.objects.filter(~used, pk__in=fleets).delete()
    return [len(rows) == DELETED_AT_ONCE] * len(items)
