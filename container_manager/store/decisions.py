"""Decisions and the evaluations they rest on, as they are kept and as they are read again."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import orjson
from django.db.models import Q

from container_manager.models import ContainerJob, RoutingDecision, RoutingEvaluation
from container_manager.routing import checks, router
from container_manager.routing.types import (
    CheckResult,
    Decision,
    Evaluation,
    HostState,
    JobRequirements,
    Verdict,
)

_HOST_FIELDS = [field.name for field in fields(HostState)]


@dataclass(frozen=True, slots=True)
class HostVerdict:
    """One host of a decision: every check, as it was decided then."""

    host_id: int
    host_name: str
    verdict: Verdict
    checks: Sequence[CheckResult]
    weight: int
    chosen: bool


def requirements(job: ContainerJob) -> JobRequirements:
    """What a job needs, as routing sees it."""
    return JobRequirements(
        memory=job.memory_limit or 0,
        cpu=round((job.cpu_limit or 0) * 1000),
        preferred_executor=job.preferred_executor,
        executor_required=job.executor_required,
        region_preference=job.region_preference,
        region_required=job.region_required,
        selector=tuple(sorted(job.host_selector.items())),
        strategy=job.strategy,
    )


def record(decided: Iterable[tuple[ContainerJob, Decision]]) -> list[RoutingDecision]:
    """Write decisions for saved jobs; each evaluation once, however many decisions share it."""
    pairs = list(decided)
    evaluations = {id(decision.evaluation): decision.evaluation for _, decision in pairs}
    rows = RoutingEvaluation.objects.bulk_create([RoutingEvaluation(record=_pack(e)) for e in evaluations.values()])
    ids = {key: row.pk for key, row in zip(evaluations, rows, strict=True)}
    return RoutingDecision.objects.bulk_create(
        [
            RoutingDecision(
                job_id=job.pk,
                attempt=job.attempt,
                host_id=decision.host.id if decision.host else None,
                host_name=decision.host.name if decision.host else "",
                executor_type=decision.host.executor_type if decision.host else "",
                strategy=decision.evaluation.requirements.strategy,
                verdict=decision.verdict.name,
                reason=decision.reason,
                evaluation_id=ids[id(decision.evaluation)],
                position=decision.position,
            )
            for job, decision in pairs
        ]
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


@dataclass(frozen=True, slots=True)
class Recorded:
    """An evaluation as it was kept, and the version of the algorithm that made it."""

    evaluation: Evaluation
    algorithm: int


def evaluations(ids: Iterable[int]) -> dict[int, Recorded]:
    """Evaluations by id."""
    rows = RoutingEvaluation.objects.filter(pk__in=list(ids)).values_list("pk", "record")
    return {pk: _unpack(bytes(record)) for pk, record in rows}


def verdicts(decision: RoutingDecision, recorded: Recorded, after: int, limit: int) -> list[HostVerdict]:
    """The hosts of a decision with every check, the chosen one first, from position `after`."""
    evaluation = recorded.evaluation
    order = sorted(range(len(evaluation.hosts)), key=lambda i: evaluation.hosts[i].id != decision.host_id)
    return [
        HostVerdict(
            host_id=(host := evaluation.hosts[i]).id,
            host_name=host.name,
            verdict=Verdict(max(evaluation.results[i], default=0)),
            checks=checks.explain(host, evaluation.requirements, evaluation.codes, evaluation.results[i]),
            weight=host.weight,
            chosen=host.id == decision.host_id,
        )
        for i in order[after : after + limit]
    ]


def replay(decision: RoutingDecision, recorded: Recorded) -> str:
    """Decide again from the record: SAME, DIFFERENT, or OTHER_VERSION when the algorithm has changed since."""
    if recorded.algorithm != router.ALGORITHM:
        return "OTHER_VERSION"
    before = recorded.evaluation
    again = router.evaluate(before.hosts, before.requirements, before.seed)
    if before.seed is None:
        same = decision.host_id in [host.id for tier in router.tiers(again) for host in tier]
    else:
        same = router.place(again, decision.position + 1)[decision.position] == decision.host_id
    return "SAME" if same else "DIFFERENT"


def _pack(evaluation: Evaluation) -> bytes:
    needs = evaluation.requirements
    return zlib.compress(
        orjson.dumps(
            {
                "algorithm": router.ALGORITHM,
                "requirements": {field.name: getattr(needs, field.name) for field in fields(needs)},
                "codes": evaluation.codes,
                "fields": _HOST_FIELDS,
                "hosts": [astuple(host) for host in evaluation.hosts],
                "results": [result.hex() for result in evaluation.results],
                "seed": evaluation.seed,
            }
        )
    )


def _unpack(data: bytes) -> Recorded:
    raw: dict[str, Any] = orjson.loads(zlib.decompress(data))
    needs = raw["requirements"]
    needs["selector"] = tuple((key, value) for key, value in needs["selector"])
    evaluation = Evaluation(
        requirements=JobRequirements(**needs),
        hosts=tuple(HostState(**dict(zip(raw["fields"], values, strict=True))) for values in raw["hosts"]),
        codes=tuple(raw["codes"]),
        results=tuple(bytes.fromhex(result) for result in raw["results"]),
        seed=raw["seed"],
    )
    return Recorded(evaluation, raw["algorithm"])
