"""The reservation: room on one host that is kept free for the job that has waited longest."""

from container_manager.domain.kinds import EventKind
from container_manager.models import ContainerJob
from container_manager.routing.types import Evaluation, HostState
from container_manager.store.pending import PENDING, reclassify, store_refusals
from container_manager.store.transaction import NewEvent, Transaction


def holder() -> ContainerJob | None:
    """The pending job that has the reservation."""
    return ContainerJob.objects.filter(PENDING, reserved_host__isnull=False).select_related("reserved_host").first()


def reserve(tx: Transaction, job: ContainerJob, host: HostState, evaluation: Evaluation) -> None:
    """Reserve the host's room for this job, which becomes a class of its own: only this job may use the room."""
    reclassify(job, reserved_host_id=host.id)
    store_refusals([(job.class_key, evaluation._replace(requirements=job.requirements()))])
    message = f"Host {host.name} reserves its room for this job, which has waited longest."
    tx.events.append(NewEvent(EventKind.HOST_RESERVED, message, job.pk, host.id, host.name, host.executor_type))


def end_for_job(tx: Transaction, job_id: int) -> None:
    """End the job's reservation, if it has one: other jobs may use the room again."""
    jobs = ContainerJob.objects.filter(pk=job_id).exclude(reserved_host=None)
    job = jobs.defer("environment").select_related("reserved_host").first()
    if job is None:
        return
    host = job.reserved_host
    reclassify(job, reserved_host_id=None)
    if host is not None:
        tx.event(EventKind.HOST_RELEASED, f"Host {host.name} no longer reserves room for this job.", job=job, host=host)


def end_for_host(tx: Transaction, host_id: int) -> None:
    """End the reservations of room on this host."""
    for job_id in ContainerJob.objects.filter(reserved_host_id=host_id).values_list("pk", flat=True):
        end_for_job(tx, job_id)
