"""The service inside a Django project: add `container_manager` to INSTALLED_APPS, and mount it in asgi.py.

    application = mount(get_asgi_application(), at="/containers")

Jobs are submitted in the project's own transactions:

    with transaction.atomic():
        order.save()
        job = submit("shop/invoice:7", ["--order", str(order.pk)])
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from container_manager import configuration
from container_manager.database import on_commit
from container_manager.errors import FieldError, ValidationFailed
from container_manager.service import current
from container_manager.service.jobs import job_values, keys_of
from container_manager.specs import read_job
from container_manager.store import installation, outbox, threads
from container_manager.store.transaction import Actor

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from container_manager.models import ContainerJob
    from container_manager.service import Service

__all__ = ["Submitted", "application", "asubmit", "lifespan", "mount", "submit"]

PROJECT = "project"
LONGEST_NAME = 100


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted. It exists as a job soon after the transaction has been committed."""

    key: str
    actor: str

    def job(self) -> "ContainerJob | None":
        """The job; None until a moment after the commit of its transaction, and for ever if that was rolled back."""
        return outbox.find(keys_of(Actor(self.actor), self.key))

    def waiting(self) -> "ContainerJob | None":
        """The job, unsaved, while it is committed and not a job yet; otherwise None."""
        return outbox.waiting_job(keys_of(Actor(self.actor), self.key)[0])

    async def ajob(self) -> "ContainerJob | None":
        """The same for asynchronous code."""
        return await sync_to_async(self.job)()


def submit(image: str, command: Sequence[str] = (), *, actor: str = PROJECT, **options: Any) -> Submitted:
    """Submit a job in the present transaction: it runs if that is committed, and never if it is rolled back.

    The transaction is that of the database with our tables. If that is not `default`, it is begun by
    `transaction.atomic(using=…)`; without one the job is committed at once.

    It works in every process of the project, whether the service runs there or not.

    Args:
        image: the image to run.
        command: the arguments of its program.
        actor: who submits it, in the audit log and as `submittedBy`.
        options: the other fields of the API's JobInput in snake_case; `environment` and `tmpfs` may be mappings. With
            an `idempotency_key`, the same key and actor with the same job are one job.

    Raises:
        ValidationFailed: a field is unknown or has no good value; each is named.
        Conflict: the `idempotency_key` was used with another job.
        ConfigurationError: this process has another secret key than the service.
    """
    for name, key, value in (("environment", "name", "value"), ("tmpfs", "path", "size_mb")):
        if isinstance(pairs := options.get(name), Mapping):
            options[name] = [{key: one, value: other} for one, other in pairs.items()]
    if isinstance(command, str):
        raise ValidationFailed([FieldError("command", f"command: must be a list, such as {command.split()!r}.")])
    key = options["idempotency_key"] = options.get("idempotency_key") or uuid.uuid4().hex
    if not 0 < len(actor) <= LONGEST_NAME or not actor.isprintable():
        problem = f"must have 1 to {LONGEST_NAME} printable characters"
        raise ValidationFailed([FieldError("actor", f"actor: {problem}.")])
    installation.check_key()
    spec = read_job({"image": image, "command": list(command), **options})
    outbox.put(actor, job_values(spec, Actor(actor)))
    on_commit(_wake, robust=True)
    return Submitted(key, actor)


async def asubmit(image: str, command: Sequence[str] = (), *, actor: str = PROJECT, **options: Any) -> Submitted:
    """The same for asynchronous code. Django's transactions are synchronous, so this is one of its own."""
    return await sync_to_async(submit)(image, command, actor=actor, **options)


def _wake() -> None:
    if (here := current()) is not None:
        here.loop.call_soon_threadsafe(here.service.process.outbox.wake)


@asynccontextmanager
async def lifespan(*, runs_jobs: bool = True) -> "AsyncIterator[Service]":
    """The running service, for the lifespan of an application that mounts `application()`.

    Args:
        runs_jobs: whether this process runs jobs; with PostgreSQL, others may.

    Raises:
        ConfigurationError: the tables are not migrated, another process serves from the SQLite database, or the secret
            key is wrong.
    """
    from graphql_api.application import serving  # noqa: PLC0415 - the API is above this module

    try:
        async with serving(runs_jobs, configuration.current().drain_seconds) as service:
            yield service
    finally:
        # Tests of the project drop their database.
        await asyncio.to_thread(threads.close_connections)


@cache
def application() -> "Starlette":
    """The API and the dashboard as an ASGI application to mount. It needs the service that `lifespan` runs."""
    from graphql_api.application import make_application  # noqa: PLC0415

    return make_application()


def mount(app: "ASGIApp", at: str = "/containers", *, runs_jobs: bool = True) -> "ASGIApp":
    """An ASGI application: ours below the path `at`, and `app` for everything else. The service lives as long as it.

    Args:
        app: what Django's get_asgi_application() returns.
        at: the path, which begins with a slash.
        runs_jobs: see `lifespan`.
    """
    prefix = at.rstrip("/")
    if not prefix.startswith("/"):
        raise ValueError(f"{at!r} must be a path like /containers")
    inner = application()

    async def mounted(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "lifespan":
            # Django's application has no lifespan.
            await _live(receive, send, runs_jobs=runs_jobs)
            return
        root = scope.get("root_path", "")
        if f"{scope['path'].removeprefix(root)}/".startswith(f"{prefix}/"):
            await inner({**scope, "root_path": root + prefix}, receive, send)
        else:
            await app(scope, receive, send)

    return mounted


async def _live(receive: "Receive", send: "Send", *, runs_jobs: bool) -> None:
    """The lifespan protocol of ASGI around the service."""
    async with AsyncExitStack() as stack:
        await receive()
        try:
            await stack.enter_async_context(lifespan(runs_jobs=runs_jobs))
        except Exception as error:  # noqa: BLE001 - the server reports it and stops
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
