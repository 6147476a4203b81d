"""The tables of what is recorded: decisions, events, tokens and the audit log."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from container_manager.domain.kinds import EventKind, Role
from container_manager.fields import choices


class RoutingFleet(models.Model):
    """The rarely changing fields of all hosts, compressed; shared by all evaluations with the same values."""

    digest = models.CharField(max_length=32, unique=True)
    record = models.BinaryField()


class RoutingEvaluation(models.Model):
    """The usage of all hosts and all checks for one class; shared by the decisions on its jobs."""

    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    fleet_id = models.BigIntegerField(db_index=True)
    # The evaluation of the same class of which this record has only the differences.
    key_id = models.BigIntegerField(null=True, default=None)
    record = models.BinaryField()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["key_id"], condition=models.Q(key_id__isnull=False), name="evaluation_key")
        ]


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

    kind = models.CharField(max_length=24, choices=choices(EventKind))
    at = models.DateTimeField(default=timezone.now)
    message = models.TextField(blank=True, default="")
    job_id = models.BigIntegerField(null=True, default=None)
    host_id = models.BigIntegerField(null=True, default=None)
    host_name = models.CharField(max_length=100, blank=True, default="")
    executor_type = models.CharField(max_length=20, blank=True, default="")
    decision_id = models.BigIntegerField(null=True, default=None)
    attempt = models.PositiveIntegerField(null=True, default=None)
    # The name of the token by which it was caused.
    actor = models.CharField(max_length=100, blank=True, default="", db_default="")

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["job_id", "id"], name="event_job"),
            models.Index(fields=["host_id", "id"], name="event_host"),
        ]


class ApiToken(models.Model):
    """A bearer token; only its hash is stored."""

    name = models.CharField(max_length=100, unique=True)
    role = models.CharField(max_length=10, choices=choices(Role))
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, default=None)
    last_used_at = models.DateTimeField(null=True, default=None)

    class Meta:
        verbose_name = "API token"

    def __str__(self) -> str:
        return self.name


class AuditEntry(models.Model):
    """Who changed what, when, from where and with what result; or who was refused what.

    `result`: DONE, or the code of what was answered instead. `detail`: what was changed, or why nothing was.
    """

    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=100)
    address = models.CharField(max_length=100, blank=True, default="")
    action = models.CharField(max_length=50)
    target = models.CharField(max_length=200, blank=True, default="")
    result = models.CharField(max_length=16, default="DONE", db_default="DONE")
    detail = models.CharField(max_length=500, blank=True, default="", db_default="")

    class Meta:
        verbose_name_plural = "audit entries"


class FleetChange(models.Model):
    """How one statement has changed what routing reads of a host; written by triggers, read by the fleet view.

    `txid`: the transaction on PostgreSQL; a random number on SQLite. `host_changed`: its own row has changed.
    """

    txid = models.BigIntegerField(db_index=True)
    at = models.DateTimeField()
    host_id = models.BigIntegerField()
    jobs = models.BigIntegerField()
    memory = models.BigIntegerField()
    cpu = models.BigIntegerField()
    host_changed = models.BooleanField()


class HostUsage(models.Model):
    """How one host was used in one minute or hour: sums over its samples, and the most jobs of them.

    `answers`: samples in which the latency was known.
    """

    host_id = models.BigIntegerField()
    seconds = models.PositiveIntegerField()
    start = models.DateTimeField()
    samples = models.PositiveIntegerField()
    jobs = models.BigIntegerField()
    most_jobs = models.BigIntegerField()
    memory_mb = models.BigIntegerField()
    cpu_millis = models.BigIntegerField()
    answers = models.PositiveIntegerField()
    latency_ms = models.FloatField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["host_id", "seconds", "start"], name="one_usage_per_time")
        ]
        indexes: ClassVar = [models.Index(fields=["seconds", "start"], name="usage_age")]
        verbose_name_plural = "usage of hosts"


class JobStatistics(models.Model):
    """What happened to jobs in one minute or hour: to all, or to those of one value of a dimension.

    `store.statistics` has the dimensions. Distributions are counts by the classes of `domain.histogram`.
    """

    seconds = models.PositiveIntegerField()
    start = models.DateTimeField()
    dimension = models.CharField(max_length=20)
    # Of the dimension `label`, its name; the key is its value.
    label = models.CharField(max_length=100, blank=True, default="")
    key = models.CharField(max_length=300, blank=True, default="")
    submitted = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    started = models.PositiveIntegerField(default=0)
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    timed_out = models.PositiveIntegerField(default=0)
    cancelled = models.PositiveIntegerField(default=0)
    failures = models.JSONField(default=dict)
    queued = models.JSONField(default=dict)
    launched = models.JSONField(default=dict)
    ran = models.JSONField(default=dict)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["seconds", "dimension", "start", "label", "key"], name="one_row_per_time")
        ]
        verbose_name_plural = "statistics of jobs"
