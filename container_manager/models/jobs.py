"""The tables of jobs, their attempts and their output. Occupancy is never a column: it is derived from the jobs."""

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, ClassVar

from django.db import models
from django.db.models.base import ModelState
from django.utils import timezone

from container_manager.domain import capabilities, cloudrun_limits, lifecycle
from container_manager.fields import CoresField, EncryptedJSONField
from container_manager.models.hosts import ExecutorHost
from container_manager.routing.types import JobRequirements

ACTIVE_STATUSES = sorted(lifecycle.ACTIVE)
WAITING = models.Q(status=lifecycle.JobStatus.PENDING)


class ContainerJob(models.Model):
    """A container to run to its end."""

    name = models.CharField(max_length=200, blank=True, default="")
    labels = models.JSONField(default=dict)
    image = models.CharField(max_length=500)
    entry_point = models.JSONField(default=list)
    command = models.JSONField(default=list)
    working_dir = models.CharField(max_length=500, blank=True, default="")
    user = models.CharField(max_length=100, blank=True, default="")
    network = models.CharField(max_length=100, blank=True, default="")
    read_only_root = models.BooleanField(default=False)
    # MiB of /dev/shm. None: the engine's default.
    shm_size_mb = models.PositiveIntegerField(null=True, default=None)
    # By path in the container: MiB.
    tmpfs = models.JSONField(default=dict)
    environment = EncryptedJSONField()
    environment_names = models.JSONField(default=list)
    # Codes of `domain.capabilities` that not every host grants; `user` and `network` are not among them.
    required_capabilities = models.JSONField(default=list, db_column="beyond")
    memory_limit = models.PositiveIntegerField(null=True, default=None)
    cpu_limit = CoresField(null=True, default=None)
    timeout_seconds = models.PositiveIntegerField(default=3600)
    priority = models.IntegerField(default=0)

    preferred_executor = models.CharField(max_length=20, blank=True, default="")
    executor_required = models.BooleanField(default=False)
    region_preference = models.CharField(max_length=100, blank=True, default="")
    region_required = models.BooleanField(default=False)
    host_selector = models.JSONField(default=dict)
    strategy = models.CharField(max_length=10, default="weighted")
    # Ids of hosts that have failed the job, and of hosts that lack something which it turned out to need.
    failed_hosts = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    unfit_hosts = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    # Derived from `requirements` on save: pending jobs with the same key are one class.
    class_key = models.CharField(max_length=32, default="")

    status = models.CharField(max_length=10, default=lifecycle.JobStatus.PENDING)
    host = models.ForeignKey(
        ExecutorHost, null=True, default=None, on_delete=models.SET_NULL, related_name="jobs", db_index=False
    )
    executor_type = models.CharField(max_length=20, blank=True, default="")
    routing_reason = models.TextField(blank=True, default="")
    # What is going on now, while a step takes long.
    message = models.TextField(blank=True, default="")
    # The host whose room is reserved for this job, because it has waited longest.
    reserved_host = models.ForeignKey(
        ExecutorHost, null=True, default=None, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    execution_id = models.CharField(max_length=200, blank=True, default="")
    exit_code = models.IntegerField(null=True, default=None)
    error = models.TextField(blank=True, default="")
    # A domain.outcome.FailureReason, or "".
    failure = models.CharField(max_length=20, blank=True, default="", db_default="")
    attempt = models.PositiveIntegerField(default=1)
    max_attempts = models.PositiveIntegerField(default=1)
    infrastructure_failures = models.PositiveIntegerField(default=0)
    # Those of them that count against INFRASTRUCTURE_RETRIES. Reset when a client asks for a retry.
    answered_failures = models.PositiveIntegerField(default=0)

    # Names of tokens.
    submitted_by = models.CharField(max_length=100, blank=True, default="", db_default="")
    cancelled_by = models.CharField(max_length=100, blank=True, default="", db_default="")
    submitted_at = models.DateTimeField(default=timezone.now)
    # Since when the attempt waits, and when it got its host. Null in rows of earlier versions.
    queued_at = models.DateTimeField(null=True, default=None)
    routed_at = models.DateTimeField(null=True, default=None)
    not_before = models.DateTimeField(null=True, default=None)
    queue_timeout_seconds = models.PositiveIntegerField(null=True, default=None)
    # Null once the job has been routed for the first time.
    queue_deadline = models.DateTimeField(null=True, default=None)
    launched_at = models.DateTimeField(null=True, default=None)
    cancel_requested_at = models.DateTimeField(null=True, default=None)
    started_at = models.DateTimeField(null=True, default=None)
    finished_at = models.DateTimeField(null=True, default=None)
    # Why and when this service began to stop the container: written before the signal is sent, because the end may
    # look like the job's own.
    stop_reason = models.CharField(max_length=10, blank=True, default="")
    stopped_at = models.DateTimeField(null=True, default=None)

    lease_owner = models.CharField(max_length=64, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True, default=None)
    lease_epoch = models.PositiveIntegerField(default=0)

    # Of a job that is submitted: its key and its input in every form in which they may be stored.
    idempotency_keys: Sequence[str] = ()
    idempotency_inputs: Sequence[str] = ()
    idempotency_key = models.CharField(max_length=64, null=True, default=None, unique=True)
    # The W3C trace context of the submission, to which the spans of the attempts belong.
    trace_parent = models.CharField(max_length=55, blank=True, default="", db_default="")

    idempotency_input = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        indexes: ClassVar = [
            # Covers the query that derives occupancy, and contains no finished job.
            models.Index(
                fields=["host", "status", "memory_limit", "cpu_limit"],
                condition=models.Q(status__in=ACTIVE_STATUSES),
                name="job_active",
            ),
            # Finds each pending class and its oldest job without reading the others.
            models.Index(fields=["class_key", "id"], condition=WAITING, name="job_waiting"),
            models.Index(
                fields=["queue_deadline"],
                condition=WAITING & models.Q(queue_deadline__isnull=False),
                name="job_deadline",
            ),
            models.Index(
                fields=["not_before"], condition=WAITING & models.Q(not_before__isnull=False), name="job_back_off"
            ),
            models.Index(
                fields=["reserved_host"], condition=WAITING & models.Q(reserved_host__isnull=False), name="job_reserved"
            ),
            models.Index(fields=["host", "-id"], name="job_host"),
            models.Index(fields=["status", "-id"], name="job_status"),
            models.Index(
                fields=["-finished_at", "-id"], condition=models.Q(finished_at__isnull=False), name="job_finished"
            ),
            models.Index(fields=["-priority", "id"], condition=WAITING, name="job_queue"),
        ]

    def __str__(self) -> str:
        return f"{self.name or self.image} #{self.pk}"

    @classmethod
    def of(cls, values: dict[str, Any]) -> "ContainerJob":
        """An unsaved job with these attributes; every other field has its default.

        Used for batches, because Django's constructor takes longer than the routing decision.
        """
        job = cls.__new__(cls)
        job.__dict__ = {**_unsaved(), **values, "_state": ModelState()}
        job.required_capabilities = job.capabilities_beyond_cloudrun()
        return job

    def requirements(self) -> JobRequirements:
        """What the job needs and prefers, as routing sees it."""
        return JobRequirements(
            memory=self.memory_limit or 0,
            cpu=round((self.cpu_limit or 0) * 1000),
            preferred_executor=self.preferred_executor,
            executor_required=self.executor_required,
            region_preference=self.region_preference,
            region_required=self.region_required,
            selector=tuple(sorted(self.host_selector.items())) if self.host_selector else (),
            strategy=self.strategy,
            priority=self.priority,
            reserved_host=self.reserved_host_id,
            grants=(*self._requested_capabilities(), *capabilities.current(self.required_capabilities)),
            failed_hosts=tuple(self.failed_hosts),
            unfit_hosts=tuple(self.unfit_hosts),
        )

    def _requested_capabilities(self) -> list[str]:
        network = [capabilities.network(self.network)] if self.network else []
        return [*([capabilities.USER] if self.user else []), *network]

    def capabilities_beyond_cloudrun(self) -> list[str]:
        """The codes of what the job asks for beyond the ordinary limits of Cloud Run."""
        memory, cpu = self.memory_limit or 0, round((self.cpu_limit or 0) * 1000)
        found = cloudrun_limits.exceeding(
            self.image,
            memory,
            cpu,
            self.timeout_seconds,
            self.environment,
            read_only_root=self.read_only_root,
            shm_size=bool(self.shm_size_mb),
        )
        return list(found)

    def derive(self) -> None:
        """Set the columns that are derived from others."""
        self.environment_names = sorted(self.environment)
        self.required_capabilities = self.capabilities_beyond_cloudrun()
        self.class_key = class_key(self.requirements())

    def save(self, **kwargs: Any) -> None:
        if kwargs.get("update_fields") is None:
            self.derive()
        super().save(**kwargs)


@cache
def _unsaved() -> dict[str, Any]:
    return {name: value for name, value in vars(ContainerJob()).items() if name not in {"_state", "submitted_at"}}


@lru_cache(maxsize=1024)
def class_key(requirements: JobRequirements) -> str:
    """A key for jobs of equal requirements, the same in all processes."""
    # Without them it is the key that earlier versions computed, which may be in the rows of waiting jobs.
    text = repr(requirements).replace(", failed_hosts=(), unfit_hosts=()", "")
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class QueueRefusal(models.Model):
    """Why the jobs of a class wait, as found by the last routing pass: one row, however many jobs there are."""

    class_key = models.CharField(max_length=32, primary_key=True)
    verdict = models.CharField(max_length=10)
    message = models.TextField()
    rejections = models.JSONField(default=list)


class JobAttempt(models.Model):
    """An earlier attempt of a job; the job row is its latest. Keeps ids and names, because hosts may be deleted."""

    job_id = models.BigIntegerField()
    attempt = models.PositiveIntegerField()
    status = models.CharField(max_length=10)
    host_id = models.BigIntegerField(null=True, default=None)
    host_name = models.CharField(max_length=100, blank=True, default="")
    executor_type = models.CharField(max_length=20, blank=True, default="")
    execution_id = models.CharField(max_length=200, blank=True, default="")
    exit_code = models.IntegerField(null=True, default=None)
    error = models.TextField(blank=True, default="")
    failure = models.CharField(max_length=20, blank=True, default="", db_default="")
    cancelled_by = models.CharField(max_length=100, blank=True, default="", db_default="")
    queued_at = models.DateTimeField(null=True, default=None)
    routed_at = models.DateTimeField(null=True, default=None)
    launched_at = models.DateTimeField(null=True, default=None)
    started_at = models.DateTimeField(null=True, default=None)
    finished_at = models.DateTimeField(null=True, default=None)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["job_id", "attempt"], name="one_row_per_attempt")]


class OutboxEntry(models.Model):
    """A job that other code has submitted in a transaction of its own; it becomes a job soon after that commits."""

    key = models.CharField(max_length=64, unique=True)
    actor = models.CharField(max_length=100)
    job = EncryptedJSONField()
    # Why it cannot become a job.
    fault = models.TextField(blank=True, default="")

    class Meta:
        verbose_name_plural = "outbox entries"


class JobOutput(models.Model):
    """The output of one attempt, compressed; see `executors.output.Output`.

    `part` 0 has notes of this service from before the container ran, 1 the container's own output.
    """

    job_id = models.BigIntegerField()
    attempt = models.PositiveIntegerField()
    part = models.PositiveSmallIntegerField(default=1)
    lines = models.BinaryField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job_id", "attempt", "part"], name="one_output_per_part")
        ]
