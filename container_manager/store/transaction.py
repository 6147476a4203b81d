"""One transaction: its units of work, their events, and the locks that order transactions."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from django.db import DataError, IntegrityError, OperationalError, ProgrammingError
from django.db import Error as DatabaseError
from prometheus_client import Counter, Histogram

from container_manager import clock
from container_manager.database import atomic, connection
from container_manager.domain.kinds import EventKind
from container_manager.errors import Conflict, NotFound, UserError
from container_manager.models import AuditEntry, ContainerJob, ExecutorHost, RoutingEvent
from container_manager.observability import metrics
from container_manager.store import bulk
from container_manager.store.fleet import view

EVENT_CHANNEL = "container_manager_events"
JOB_ENDS = frozenset({EventKind.JOB_FINISHED, EventKind.JOB_CANCELLED})
ROUTING_LOCK, EVENT_LOCK = 0x636D0001, 0x636D0002
"""Keys of PostgreSQL's advisory locks; on SQLite, BEGIN IMMEDIATE stands for both."""

FROZEN_AFTER = "5s"
"""PostgreSQL ends the connection of a process that stands still inside a transaction for this long."""

ITEM_ERRORS = (
    IntegrityError, DataError, ProgrammingError, ArithmeticError, RuntimeError, ValueError, TypeError, LookupError,
)  # fmt: skip
"""Errors that one item of a batch can cause: the others are committed without it."""

DEADLOCK_STATES = {"40P01", "40001"}
"""PostgreSQL's states for a deadlock and a serialization failure: the same transaction may succeed when repeated."""

DEADLOCK_TRIES = 3

RESULTS: dict[type, str] = {NotFound: "NOT_FOUND", Conflict: "CONFLICT"}
"""Results in the audit log of what was not done."""

LONGEST_DETAIL = 500
AUDITED = ("at", "actor", "address", "action", "target", "result", "detail")

Outcome = Any
"""A unit's answer for one item: its result, or the exception that this item's caller gets."""

Item = TypeVar("Item")
Unit = Callable[["Transaction", Sequence[Any]], Sequence[Outcome]]
"""A unit of work takes all items of its kind in the batch and returns one answer each, in order."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a change: the name of a token, and the address of the client."""

    name: str
    address: str = ""
    token_id: int = 0


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that claims jobs, the node it runs on, and how long its leases last."""

    owner: str
    node: str
    lease: timedelta


class Fence(NamedTuple):
    """A claim on a job. Each write of its owner carries it, so that a lost claim changes nothing."""

    job_id: int
    epoch: int


Claimed = tuple[ContainerJob, Fence]
"""A job with its host, and the claim on it."""


class NewEvent(NamedTuple):
    """An event before it has an id."""

    kind: EventKind
    message: str
    job_id: int | None = None
    host_id: int | None = None
    host_name: str = ""
    executor_type: str = ""
    decision_id: int | None = None
    attempt: int | None = None
    actor: str = ""


Counted = list[tuple[Counter, tuple[str, ...]]]
"""Metrics to increase after the commit, each with its labels."""

Timed = list[tuple[Histogram, str, timedelta]]
"""Durations to observe after the commit, each with an executor type."""


@dataclass(slots=True)
class Transaction:
    """What the units of one transaction record beside their own rows."""

    events: list[NewEvent] = field(default_factory=list)
    rows: list[bulk.Rows] = field(default_factory=list)
    """Rows that are inserted before the next unit, or together with the events."""
    audit_entries: list[tuple[object, ...]] = field(default_factory=list)
    worker: Worker | None = None
    """This process's worker: jobs that this transaction routes may be claimed for it at once."""
    claimed: list[Claimed] = field(default_factory=list)
    counted: Counted = field(default_factory=list)
    timed: Timed = field(default_factory=list)

    def event(
        self,
        kind: EventKind,
        message: str = "",
        *,
        job: ContainerJob | None = None,
        host: ExecutorHost | None = None,
        actor: Actor | None = None,
    ) -> None:
        """Record an event; events are written last in the transaction."""
        if kind in JOB_ENDS and job is not None:
            self.counted.append((metrics.ENDS, (str(job.status), str(job.executor_type))))
            self._time(metrics.RUN_SECONDS, job, job.started_at, job.finished_at)
        elif kind == EventKind.JOB_STARTED and job is not None:
            self._time(metrics.QUEUE_SECONDS, job, job.queued_at, job.routed_at)
            self._time(metrics.LAUNCH_SECONDS, job, job.routed_at, clock.now())
        self.events.append(
            NewEvent(
                kind=kind,
                message=message,
                job_id=job.pk if job else None,
                host_id=host.pk if host else None,
                host_name=host.name if host else "",
                executor_type=str(host.executor_type if host else job.executor_type if job else ""),
                attempt=job.attempt if job else None,
                actor=actor.name if actor else "",
            )
        )

    def _time(self, metric: Histogram, job: ContainerJob, since: datetime | None, until: datetime | None) -> None:
        if since is not None and until is not None:
            self.timed.append((metric, str(job.executor_type), max(until - since, timedelta())))

    def flush(self) -> None:
        """Insert the rows that were kept back, because the next unit may read them or take new ids."""
        bulk.insert(*self.rows)
        self.rows.clear()

    def audit(
        self, actor: Actor | None, action: str, target: object = "", answer: object = None, detail: str = ""
    ) -> None:
        """Record in the audit log who did what to what. `answer`: an error says that nothing was done."""
        if actor is not None:
            result = RESULTS.get(type(answer), "DONE")
            said = str(answer) if isinstance(answer, UserError) else detail
            now = bulk.as_moment(clock.now())
            self.audit_entries.append(
                (now, actor.name, actor.address, action, str(target)[:200], result, said[:LONGEST_DETAIL])
            )


def under_routing_lock(unit: Unit) -> Unit:
    """Mark a unit that decides, or changes what decisions depend on: the fleet runs one such transaction at a time."""
    unit.routing_lock = True  # type: ignore[attr-defined]
    return unit


class Committed(NamedTuple):
    """The outcome of each entry in order, with the events, the claims for this process and the metrics to increase."""

    outcomes: list[Outcome]
    events: list[NewEvent] = []
    claimed: list[Claimed] = []
    counted: Counted = []
    timed: Timed = []


def commit(entries: Sequence[tuple[Unit, Any]], worker: Worker | None = None) -> Committed:
    """Do all entries in one transaction; if one of them fails, each in its own, so that a bad item fails alone."""
    for _ in range(DEADLOCK_TRIES):
        try:
            return _transact(entries, worker)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) not in DEADLOCK_STATES:
                return Committed([_for_caller(error)] * len(entries))
            fault: Exception = error
        except ITEM_ERRORS as error:
            if len(entries) == 1:
                return Committed([_for_caller(error)])
            break
        except Exception as error:  # noqa: BLE001 - the database's own error: repeating item by item would not help
            return Committed([_for_caller(error)] * len(entries))
    else:
        return Committed([_for_caller(fault)] * len(entries))
    parts = [commit([entry], worker) for entry in entries]
    return Committed(*(list(chain.from_iterable(part)) for part in zip(*parts, strict=True)))


def commit_one(unit: Unit, item: Any) -> Any:
    """Do one entry; returns its result or raises its error."""
    (outcome,) = commit([(unit, item)]).outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def record_audit(tx: Transaction, items: Sequence[tuple[Actor, str, str]]) -> list[None]:
    """Record actions that change no row of their own, as (actor, action, target)."""
    for actor, action, target in items:
        tx.audit(actor, action, target)
    return [None] * len(items)


def _transact(entries: Sequence[tuple[Unit, Any]], worker: Worker | None) -> Committed:
    groups: dict[Unit, list[int]] = {}
    for index, (unit, _) in enumerate(entries):
        groups.setdefault(unit, []).append(index)
    outcomes: list[Outcome] = [None] * len(entries)
    tx = Transaction(worker=worker)
    with atomic():
        if decides := any(getattr(unit, "routing_lock", False) for unit in groups):
            view().begin()
        _take_locks(decides)
        for unit, indexes in groups.items():
            tx.flush()
            answers = unit(tx, [entries[index][1] for index in indexes])
            for index, answer in zip(indexes, answers, strict=True):
                outcomes[index] = answer
        _write(tx)
    return Committed(outcomes, tx.events, tx.claimed, tx.counted, tx.timed)


def _take_locks(routing: bool) -> None:
    if connection.vendor != "postgresql":
        return
    limits = f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_AFTER}'; SET LOCAL lock_timeout = '20s'"
    lock = f"; SELECT pg_advisory_xact_lock({ROUTING_LOCK})" if routing else ""
    with connection.cursor() as cursor:
        cursor.execute(limits + lock)


def _write(tx: Transaction) -> None:
    # The event lock is taken by a statement of its own before the insert: ids must be allocated under the lock,
    # otherwise they would not follow commit order.
    now = bulk.as_moment(clock.now())
    events = bulk.Rows(
        RoutingEvent, (*NewEvent._fields, "at"), [(str(event.kind), *event[1:], now) for event in tx.events]
    )
    audit = bulk.Rows(AuditEntry, AUDITED, tx.audit_entries)
    before = f"SELECT pg_advisory_xact_lock({EVENT_LOCK}), pg_notify('{EVENT_CHANNEL}', '')"
    bulk.insert(*tx.rows, audit, events, after=before if tx.events else "")


def _for_caller(error: Exception) -> Exception:
    """The error as the item's caller may see it."""
    if isinstance(error, IntegrityError):
        conflict = Conflict(
            "The change does not fit the present state; the same object may have been changed at the same moment. "
            "Read it again, then repeat or correct the request."
        )
        conflict.__cause__ = error
        return conflict
    if isinstance(error, DatabaseError):
        with suppress(Exception):
            connection.close_if_unusable_or_obsolete()
    return error
