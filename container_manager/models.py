"""The tables. Occupancy is never a column: it is derived from the job rows."""

import hashlib
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models.base import ModelState
from django.utils import timezone

from container_manager.domain import capabilities, cloudrun_limits, lifecycle
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import EventKind, ExecutorType, Role
from container_manager.executors.configs import grants_of, node_of, region_of, takes_only_preferred
from container_manager.fields import CoresField, EncryptedJSONField
from container_manager.routing.types import JobRequirements

ACTIVE_STATUSES = sorted(lifecycle.ACTIVE)
WAITING = models.Q(status=lifecycle.JobStatus.PENDING)


def _choices(kinds: type[StrEnum]) -> list[tuple[str, str]]:
    return [(kind.value, kind.name.replace("_", " ").title()) for kind in kinds]


class Installation(models.Model):
    """One row: the identity of this installation, and a canary value that only the right secret key decrypts."""

    instance = models.CharField(max_length=16)
    canary = models.BinaryField()
    # The id of the newest event that has been deleted.
    events_dropped_through = models.BigIntegerField(default=0, db_default=0)


class Leadership(models.Model):
    """Which process holds a duty that only one process performs; another takes over when the lease expires."""

    duty = models.CharField(max_length=300, primary_key=True)
    owner = models.CharField(max_length=300)
    expires_at = models.DateTimeField()


class ExecutorHost(models.Model):
    """A place that runs containers: an engine, a Cloud Run region, or the simulator."""

    name = models.CharField(max_length=100, unique=True)
    executor_type = models.CharField(max_length=20, choices=_choices(ExecutorType))
    config = EncryptedJSONField()
    region = models.CharField(max_length=100, blank=True, default="")
    labels = models.JSONField(default=dict)
    routing_weight = models.PositiveIntegerField(default=100)
    is_active = models.BooleanField(default=True)
    is_draining = models.BooleanField(default=False)
    max_concurrent_jobs = models.PositiveIntegerField(default=10)
    # None: the value that the engine reports; unlimited if it reports none.
    max_memory_mb = models.PositiveIntegerField(null=True, default=None)
    max_cpu_cores = CoresField(null=True, default=None)
    reported_memory_mb = models.PositiveIntegerField(null=True, default=None)
    reported_cpu_cores = CoresField(null=True, default=None)
    config_version = models.PositiveIntegerField(default=0)
    # Derived from `config` on save, because routing and claiming must not have to decrypt it.
    node = models.CharField(max_length=255, blank=True, default="")
    only_preferred = models.BooleanField(default=False)
    grants = models.JSONField(default=list)

    health_status = models.CharField(max_length=10, choices=_choices(HealthStatus), default=HealthStatus.UNKNOWN)
    last_health_check = models.DateTimeField(null=True, default=None)
    health_latency_ms = models.FloatField(null=True, default=None)
    health_error = models.TextField(blank=True, default="")
    consecutive_failures = models.PositiveIntegerField(default=0)
    consecutive_successes = models.PositiveIntegerField(default=0)
    # Failed launches in a row, and how often the host was ejected for them since its last successful launch.
    launch_failures = models.PositiveIntegerField(default=0)
    ejections = models.PositiveIntegerField(default=0)
    # Why launches are refused, if the cause is the host and its probes do not show it.
    launch_error = models.TextField(blank=True, default="")
    ejected_until = models.DateTimeField(null=True, default=None)
    # How often in a row a quota was used up, and until when routing avoids the host for it.
    cooldowns = models.PositiveIntegerField(default=0)
    cooldown_until = models.DateTimeField(null=True, default=None)
    created_at = models.DateTimeField(default=timezone.now)

    # Annotated by `store.hosts.with_usage`, from the jobs that hold room on the host or have reserved it.
    used_jobs: int = 0
    used_memory_mb: int = 0
    used_cpu_millis: int = 0
    ejected: bool = False
    cooling: bool = False
    reserved_priority: int | None = None

    def __str__(self) -> str:
        return self.name

    def derive(self) -> None:
        """Set the columns that are derived from `config`; a region that was given stays."""
        self.only_preferred = takes_only_preferred(self.executor_type, self.config)
        self.grants = grants_of(self.executor_type, self.config)
        self.region = self.region or region_of(self.executor_type, self.config)
        self.node = node_of(self.executor_type, self.config, settings.CONTAINER_MANAGER.node)

    def save(self, **kwargs: Any) -> None:
        if kwargs.get("update_fields") is None:
            self.derive()
        super().save(**kwargs)


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
    attempt = models.PositiveIntegerField(default=1)
    max_attempts = models.PositiveIntegerField(default=1)
    infrastructure_failures = models.PositiveIntegerField(default=0)
    # Those of them that count against INFRASTRUCTURE_RETRIES. Reset when a client asks for a retry.
    answered_failures = models.PositiveIntegerField(default=0)

    submitted_at = models.DateTimeField(default=timezone.now)
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
        )

    def _requested_capabilities(self) -> list[str]:
        network = [capabilities.network(self.network)] if self.network else []
        return [*([capabilities.USER] if self.user else []), *network]

    def capabilities_beyond_cloudrun(self) -> list[str]:
        """The codes of what the job asks for beyond the ordinary limits of Cloud Run."""
        memory, cpu = self.memory_limit or 0, round((self.cpu_limit or 0) * 1000)
        found = cloudrun_limits.exceeding(
            self.image, memory, cpu, self.timeout_seconds, self.environment, read_only_root=self.read_only_root
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


@lru_cache(maxsize=4096)
def class_key(requirements: JobRequirements) -> str:
    """A key for jobs of equal requirements, the same in all processes."""
    return hashlib.blake2b(repr(requirements).encode(), digest_size=16).hexdigest()


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
    launched_at = models.DateTimeField(null=True, default=None)
    started_at = models.DateTimeField(null=True, default=None)
    finished_at = models.DateTimeField(null=True, default=None)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["job_id", "attempt"], name="one_row_per_attempt")]


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


class RoutingFleet(models.Model):
    """The rarely changing fields of all hosts, compressed; shared by all evaluations with the same values."""

    digest = models.CharField(max_length=32, unique=True)
    record = models.BinaryField()


class RoutingEvaluation(models.Model):
    """The usage of all hosts and all checks for one class; shared by the decisions on its jobs."""

    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    fleet_id = models.BigIntegerField(db_index=True)
    record = models.BinaryField()


class RoutingDecision(models.Model):
    """What was decided for one attempt, and why. Keeps ids and names, because hosts may be deleted."""

    job_id = models.BigIntegerField(db_index=True)
    attempt = models.PositiveIntegerField()
    host_id = models.BigIntegerField(null=True, default=None)
    host_name = models.CharField(max_length=100, blank=True, default="")
    executor_type = models.CharField(max_length=20, blank=True, default="")
    strategy = models.CharField(max_length=10)
    reason = models.TextField()
    # For a refusal: how many hosts fail each check. It stays when the evaluation has been deleted.
    rejections = models.JSONField(null=True, default=None)
    decided_at = models.DateTimeField(default=timezone.now)
    evaluation_id = models.BigIntegerField()
    position = models.PositiveIntegerField()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["host_id", "-id"], name="decision_host")]


class RoutingEvent(models.Model):
    """One committed fact; the id is its cursor and follows commit order."""

    kind = models.CharField(max_length=24, choices=_choices(EventKind))
    at = models.DateTimeField(default=timezone.now)
    message = models.TextField(blank=True, default="")
    job_id = models.BigIntegerField(null=True, default=None)
    host_id = models.BigIntegerField(null=True, default=None)
    host_name = models.CharField(max_length=100, blank=True, default="")
    executor_type = models.CharField(max_length=20, blank=True, default="")
    decision_id = models.BigIntegerField(null=True, default=None)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["job_id", "id"], name="event_job"),
            models.Index(fields=["host_id", "id"], name="event_host"),
        ]


class ApiToken(models.Model):
    """A bearer token; only its hash is stored."""

    name = models.CharField(max_length=100, unique=True)
    role = models.CharField(max_length=10, choices=_choices(Role))
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, default=None)
    last_used_at = models.DateTimeField(null=True, default=None)

    def __str__(self) -> str:
        return self.name


class AuditEntry(models.Model):
    """Who changed what, when, and from where."""

    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=100)
    address = models.CharField(max_length=100, blank=True, default="")
    action = models.CharField(max_length=50)
    target = models.CharField(max_length=200, blank=True, default="")
