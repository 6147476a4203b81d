"""What ended long ago is deleted, and nothing else."""

from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async

from container_manager import clock
from container_manager.control.housekeeping import Housekeeping
from container_manager.control.leader import Leader
from container_manager.environment import Environment
from container_manager.executors.output import Output, OutputLine
from container_manager.models import AuditEntry, ContainerJob, JobAttempt, JobOutput, RoutingDecision
from container_manager.store import outputs, retention
from container_manager.store.writer import Writer
from tests.eventually import eventually
from tests.factories import ContainerJobFactory
from tests.loops import running_loop

make_job = sync_to_async(ContainerJobFactory)
DAY = timedelta(days=1)


async def keep(**values: object) -> ContainerJob:
    """A job with an output, an attempt and a decision."""
    job = await make_job(**values)
    lines = outputs.compress(Output.of([OutputLine("stdout", 1, "hello")]))
    await JobOutput.objects.acreate(job_id=job.pk, attempt=1, lines=lines)
    await JobAttempt.objects.acreate(job_id=job.pk, attempt=1, status="failed")
    await RoutingDecision.objects.acreate(job_id=job.pk, attempt=1, reason="x", evaluation_id=1, position=0)
    return job


async def of(model: type, name: str = "job_id") -> set[int]:
    return {pk async for pk in model.objects.values_list(name, flat=True)}


async def test_jobs_and_outputs_that_ended_long_ago_are_deleted(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "DELETED_AT_ONCE", 2)
    now = clock.now()
    old = [await keep(status="succeeded", finished_at=now - 40 * DAY) for _ in range(5)]
    quiet = await keep(status="failed", finished_at=now - 20 * DAY)
    fresh = await keep(status="cancelled", finished_at=now - DAY)
    waiting = await keep(status="pending", submitted_at=now - 90 * DAY)
    for days in (1, 40):
        await AuditEntry.objects.acreate(actor="me", action="x", at=now - days * DAY)
    kept = Environment(job_days=30, output_days=10, audit_days=30)
    leader = Leader(writer, "test-node", 60)
    async with running_loop(leader), running_loop(Housekeeping(writer, leader, kept)):
        await eventually(lambda: _all_deleted({job.pk for job in old}))
        await eventually(lambda: _is(JobOutput, {fresh.pk, waiting.pk}))
    left = {quiet.pk, fresh.pk, waiting.pk}
    assert await of(ContainerJob, "pk") == await of(JobAttempt) == await of(RoutingDecision) == left
    assert await AuditEntry.objects.acount() == 1


async def _all_deleted(pks: set[int]) -> bool:
    return not pks & await of(ContainerJob, "pk")


async def _is(model: type, pks: set[int]) -> bool:
    return await of(model) == pks


async def test_a_job_that_was_retried_meanwhile_stays(writer: Writer) -> None:
    job = await keep(status="succeeded", finished_at=clock.now() - 40 * DAY)
    (found,) = await sync_to_async(retention.ended_jobs)(30 * DAY)
    await ContainerJob.objects.filter(pk=job.pk).aupdate(status="pending", finished_at=None)
    await writer.write(retention.delete_jobs, [found])
    assert await of(ContainerJob, "pk") == await of(JobOutput) == {job.pk}
