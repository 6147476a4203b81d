"""The tables of the installation and of its hosts."""

import secrets
from typing import Any

from django.db import models
from django.utils import timezone

from container_manager import configuration
from container_manager.domain.host_health import HealthStatus
from container_manager.domain.kinds import ExecutorType
from container_manager.executors.configs import grants_of, node_of, region_of, takes_only_preferred
from container_manager.fields import CoresField, EncryptedJSONField, choices


def executor_types() -> list[tuple[str, str]]:
    """The types of hosts, with those of installed packages."""
    return choices(ExecutorType)


def first_revision() -> int:
    """That of a new host; triggers give it another one at every change."""
    return secrets.randbits(62)


class Installation(models.Model):
    """One row: the identity of this installation, and a canary value that only the right secret key decrypts."""

    instance = models.CharField(max_length=16)
    canary = models.BinaryField()
    # Fingerprints of the secret keys with which values may be encrypted.
    keys_in_use = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    # The id of the newest event that has been deleted.
    events_dropped_through = models.BigIntegerField(default=0, db_default=0)
    # The id of the newest event that the statistics contain.
    counted_through = models.BigIntegerField(default=0, db_default=0)
    # The id of the newest event for which signals were sent; None: none was sent yet.
    signalled_through = models.BigIntegerField(null=True, default=None)


class Leadership(models.Model):
    """Which process holds a duty that only one process performs; another takes over when the lease expires."""

    duty = models.CharField(max_length=300, primary_key=True)
    owner = models.CharField(max_length=300)
    expires_at = models.DateTimeField()


class ExecutorHost(models.Model):
    """A place that runs containers: an engine, a Cloud Run region, or the simulator."""

    name = models.CharField(max_length=100, unique=True)
    executor_type = models.CharField(max_length=20, choices=executor_types)
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
    # What the engine says that it is, such as "Docker 20.10.24", and what tells it apart from others.
    engine = models.CharField(max_length=100, blank=True, default="", db_default="")
    engine_id = models.CharField(max_length=32, blank=True, default="", db_default="")
    config_version = models.PositiveIntegerField(default=0)
    # Derived from `config` on save, because routing and claiming must not have to decrypt it.
    node = models.CharField(max_length=255, blank=True, default="")
    only_preferred = models.BooleanField(default=False)
    grants = models.JSONField(default=list)

    health_status = models.CharField(max_length=10, choices=choices(HealthStatus), default=HealthStatus.UNKNOWN)
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
    # When it had finished its last job, while it is drained.
    empty_since = models.DateTimeField(null=True, default=None)
    created_at = models.DateTimeField(default=timezone.now)
    # Two rows with the same id and revision are the same, also of two states of a database.
    revision = models.BigIntegerField(default=first_revision, db_default=0, editable=False)

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
        """Set the columns that are derived from `config`.

        A region that was given stays. A local engine stays with its node, whichever process changes the host, unless
        `config` names another one.
        """
        self.only_preferred = takes_only_preferred(self.executor_type, self.config)
        self.grants = grants_of(self.executor_type, self.config)
        self.region = self.region or region_of(self.executor_type, self.config)
        self.node = node_of(self.executor_type, self.config, self.node or configuration.current().node)

    def save(self, **kwargs: Any) -> None:
        if kwargs.get("update_fields") is None:
            self.derive()
        super().save(**kwargs)
