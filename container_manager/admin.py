"""Django's admin for every table. It shows everything and changes nothing by itself: actions go through the service."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import BinaryField, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.functional import cached_property

from container_manager import models
from container_manager.errors import Unavailable, UserError
from container_manager.executors.configs import CONFIGS
from container_manager.executors.secrets import hide_secrets
from container_manager.service import Service, current
from container_manager.store import threads
from container_manager.store.transaction import Actor

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
    _Paginator = Paginator[Any]
else:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator

logger = logging.getLogger(__name__)

LARGEST_PAGE, MOST_AT_ONCE, MOST_COUNTED = 100, 1000, 10_000
WAIT_SECONDS = 15.0


class Caller(NamedTuple):
    """Who asks, and the running service with its event loop; the server sets it as `request.container_manager`."""

    service: Service
    loop: asyncio.AbstractEventLoop
    actor: Actor


NO_SERVICE = "No service runs in this process; use the dashboard or the command line of one that runs."


def _in_project(request: HttpRequest) -> Caller | None:
    """The user of a project's admin, if the service runs in the same process."""
    here = current()
    if here is None:
        return None
    return Caller(*here, Actor(request.user.get_username(), request.META.get("REMOTE_ADDR", "")))


class _Pages(_Paginator):
    """Counts only so far, because the tables may be large."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MOST_COUNTED].count())


class _Shown(_ModelAdmin):
    """Shows rows. Binary values, which are ciphertext or compressed, are left out."""

    show_full_result_count = False
    paginator = _Pages
    list_per_page = LARGEST_PAGE
    list_max_show_all = LARGEST_PAGE
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Rows without their binary values, which may be large, and which a list does not show."""
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.defer(*self._binary())

    def _binary(self) -> list[str]:
        return [field.name for field in self.opts.concrete_fields if isinstance(field, BinaryField)]

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the user may use the actions."""
        return request.user.has_perm(f"container_manager.change_{self.opts.model_name}")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        left_out = self._binary()
        return [field.name for field in self.opts.concrete_fields if field.name not in left_out]

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        # Django's own log has only what its admin changes; the audit log has everything.
        raise Http404

    def operate(
        self,
        request: HttpRequest,
        rows: QuerySet[Any],
        change: Callable[[Service, Sequence[int], Actor], Coroutine[Any, Any, int]],
    ) -> None:
        """Let the service change rows, at most `MOST_AT_ONCE`, and say how many it has changed."""
        caller: Caller | None = getattr(request, "container_manager", None) or _in_project(request)
        if caller is None:
            self.message_user(request, NO_SERVICE, messages.ERROR)
            return
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if len(ids) > MOST_AT_ONCE:
            self.message_user(request, f"Select at most {MOST_AT_ONCE} at a time.", messages.ERROR)
            return
        work = change(caller.service, ids, caller.actor)
        try:
            changed = asyncio.run_coroutine_threadsafe(work, caller.loop).result(WAIT_SECONDS)
        except TimeoutError:
            self.message_user(
                request, "It takes long and goes on; the audit log shows what was done.", messages.WARNING
            )
            return
        except (Unavailable, *threads.DATABASE_AWAY) as error:
            logger.warning("an action of the admin was cut short: %r", error)
            self.message_user(
                request, "The database does not answer; the audit log shows what was done.", messages.ERROR
            )
            return
        level = messages.SUCCESS if changed == len(ids) else messages.WARNING
        self.message_user(request, f"{changed} of {len(ids)} were changed.", level)


async def _each(change: Callable[[int, Actor], Awaitable[object]], ids: Iterable[int], actor: Actor) -> int:
    """How many of these were changed; those that do not allow it stay as they are."""
    answers = await asyncio.gather(*(change(pk, actor) for pk in ids), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, UserError):
            raise answer
    return sum(not isinstance(answer, UserError) for answer in answers)


class HostAdmin(_Shown):
    """Hosts, to drain and to resume."""

    list_display = ("name", "executor_type", "region", "health_status", "is_active", "is_draining", "routing_weight")
    list_filter = ("executor_type", "health_status", "is_active", "is_draining")
    search_fields = ("name", "region")
    actions = ("drain", "resume")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return [*super().get_fields(request, obj), "settings"]

    @admin.display(description="Config")
    def settings(self, host: models.ExecutorHost) -> object:
        """The config without its secrets."""
        return hide_secrets(host.config, CONFIGS[host.executor_type])

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("settings",)

    @admin.action(description="Drain: take no new jobs", permissions=["operate"])
    def drain(self, request: HttpRequest, hosts: QuerySet[models.ExecutorHost]) -> None:
        self.operate(request, hosts, lambda service, ids, actor: _each(service.hosts.drain, ids, actor))

    @admin.action(description="Resume: take jobs again", permissions=["operate"])
    def resume(self, request: HttpRequest, hosts: QuerySet[models.ExecutorHost]) -> None:
        self.operate(request, hosts, lambda service, ids, actor: _each(service.hosts.resume, ids, actor))


class JobAdmin(_Shown):
    """Jobs, to cancel and to retry."""

    list_display = ("id", "name", "image", "status", "host", "failure", "exit_code", "submitted_by", "submitted_at")
    list_filter = ("status", "executor_type")
    list_select_related = ("host",)
    search_fields = ("name", "image")
    actions = ("cancel", "retry")

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, jobs: QuerySet[models.ContainerJob]) -> None:
        self.operate(request, jobs, lambda service, ids, actor: service.jobs.cancel_all(ids, actor))

    @admin.action(description="Retry", permissions=["operate"])
    def retry(self, request: HttpRequest, jobs: QuerySet[models.ContainerJob]) -> None:
        self.operate(request, jobs, lambda service, ids, actor: service.jobs.retry_all(ids, actor))


class TokenAdmin(_Shown):
    """Tokens, to revoke."""

    list_display = ("name", "role", "created_at", "expires_at", "last_used_at")
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return [name for name in super().get_fields(request, obj) if name != "digest"]

    @admin.action(description="Revoke", permissions=["operate"])
    def revoke(self, request: HttpRequest, tokens: QuerySet[models.ApiToken]) -> None:
        self.operate(request, tokens, lambda service, ids, actor: _each(service.tokens.revoke, ids, actor))


COLUMNS: dict[type[Model], tuple[str, ...]] = {
    models.AuditEntry: ("at", "actor", "address", "action", "target", "result", "detail"),
    models.FleetChange: ("id", "at", "host_id", "jobs", "memory", "cpu", "host_changed"),
    models.HostUsage: ("host_id", "seconds", "start", "samples", "jobs", "most_jobs"),
    models.Installation: ("instance", "counted_through", "events_dropped_through"),
    models.JobAttempt: ("job_id", "attempt", "status", "host_name", "failure", "exit_code", "finished_at"),
    models.JobOutput: ("job_id", "attempt", "part"),
    models.JobStatistics: ("dimension", "label", "key", "seconds", "start", "succeeded", "failed"),
    models.Leadership: ("duty", "owner", "expires_at"),
    models.OutboxEntry: ("key", "actor", "fault"),
    models.QueueRefusal: ("class_key", "verdict", "message"),
    models.RoutingDecision: ("id", "job_id", "attempt", "host_name", "reason", "decided_at"),
    models.RoutingEvaluation: ("id",),
    models.RoutingEvent: ("id", "at", "kind", "job_id", "host_name", "actor", "message"),
    models.RoutingFleet: ("id",),
}
"""What the lists of the other tables show."""


def register(site: admin.AdminSite) -> None:
    """Register every table."""
    site.register(models.ExecutorHost, HostAdmin)
    site.register(models.ContainerJob, JobAdmin)
    site.register(models.ApiToken, TokenAdmin)
    for model, columns in COLUMNS.items():
        site.register(model, _Shown, list_display=columns)


register(admin.site)
