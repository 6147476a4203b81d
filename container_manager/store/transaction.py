"""One transaction: units of work, their events, and the locks that order them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from django.db import DataError, IntegrityError, OperationalError, ProgrammingError, connection, transaction
from django.db import Error as DatabaseError
from django.utils import timezone
from prometheus_client import Counter

from container_manager import metrics
from container_manager.errors import Conflict
from container_manager.models import AuditEntry, ContainerJob, EventKind, ExecutorHost, RoutingEvent
from container_manager.store import bulk

EVENT_CHANNEL = "container_manager_events"
ENDS = frozenset({EventKind.JOB_FINISHED, EventKind.JOB_CANCELLED})
ROUTING_LOCK, EVENT_LOCK = 0x636D0001, 0x636D0002
"""Keys of PostgreSQL's advisory locks; on SQLite, BEGIN IMMEDIATE is both."""

FROZEN_AFTER = "5s"
"""A process that stands still inside a transaction is thrown out after this."""

ONE_ENTRYS_FAULT = (IntegrityError, DataError, ProgrammingError, RuntimeError, ValueError, TypeError, LookupError)
DEADLOCKED = {"40P01", "40001"}
"""PostgreSQL's words for: the same again would do."""

DEADLOCK_TRIES = 3

Outcome = Any
"""A unit's answer for one item: its result, or the exception to raise to that item's caller."""

Item = TypeVar("Item")
Unit = Callable[["Transaction", Sequence[Any]], Sequence[Outcome]]
"""A unit of work takes all items that wait for it and answers each, in order."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a change: a token's name, and from where."""

    name: str
    address: str = ""
    token_id: int = 0


@dataclass(frozen=True, slots=True)
class Worker:
    """Who claims: a process, and the node it is on."""

    owner: str
    node: str
    lease: timedelta


class Fence(NamedTuple):
    """A claim on a job; every write of its owner names it."""

    job_id: int
    epoch: int


Claimed = tuple[ContainerJob, Fence]
"""A job with its host, and the claim on it."""


class Fact(NamedTuple):
    """What an event tells."""

    kind: EventKind
    message: str
    job_id: int | None = None
    host_id: int | None = None
    host_name: str = ""
    executor_type: str = ""
    decision_id: int | None = None


Counted = list[tuple[Counter, tuple[str, ...]]]
"""What is to be counted once it is committed: the metric and its labels."""


@dataclass(slots=True)
class Transaction:
    """What a unit of work records beside its own rows."""

    events: list[Fact] = field(default_factory=list)
    rows: list[bulk.Rows] = field(default_factory=list)
    """To be inserted before the next unit, or together with the events."""
    audit: list[AuditEntry] = field(default_factory=list)
    worker: Worker | None = None
    """This process's own, for which what is routed here may be claimed at once."""
    claimed: list[Claimed] = field(default_factory=list)
    counted: Counted = field(default_factory=list)

    def event(
        self,
        kind: EventKind,
        message: str = "",
        *,
        job: ContainerJob | None = None,
        host: ExecutorHost | None = None,
    ) -> None:
        """Tell the event log; written last in the transaction."""
        if kind in ENDS and job is not None:
            self.counted.append((metrics.ENDS, (str(job.status), str(job.executor_type))))
        self.events.append(
            Fact(
                kind=kind,
                message=message,
                job_id=job.pk if job else None,
                host_id=host.pk if host else None,
                host_name=host.name if host else "",
                executor_type=str(host.executor_type if host else job.executor_type if job else ""),
            )
        )

    def flush(self) -> None:
        """Insert the rows that were kept back, for those who read on or take new ids."""
        bulk.insert(*self.rows)
        self.rows.clear()

    def by(self, actor: Actor | None, action: str, target: object = "") -> None:
        """Leave an audit row."""
        if actor is not None:
            self.audit.append(
                AuditEntry(actor=actor.name, address=actor.address, action=action, target=str(target)[:200])
            )


def under_routing_lock(unit: Unit) -> Unit:
    """Marks a unit that decides, or changes what decisions depend on: one such transaction at a time in the fleet."""
    unit.routing_lock = True  # type: ignore[attr-defined]
    return unit


class Committed(NamedTuple):
    """The outcome of each entry, in order; what the event log was told, claimed for this process, and to be counted."""

    outcomes: list[Outcome]
    events: list[Fact] = []
    claimed: list[Claimed] = []
    counted: Counted = []


def commit(entries: Sequence[tuple[Unit, Any]], worker: Worker | None = None) -> Committed:
    """Do all entries in one transaction; should one of them be bad, each in one of its own, so that it fails alone."""
    for _ in range(DEADLOCK_TRIES):
        try:
            return _transact(entries, worker)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) not in DEADLOCKED:
                return Committed([_told(error)] * len(entries))
            fault: Exception = error
        except ONE_ENTRYS_FAULT as error:
            if len(entries) == 1:
                return Committed([_told(error)])
            break
        except Exception as error:  # noqa: BLE001 - the database's own fault: again would be no better
            return Committed([_told(error)] * len(entries))
    else:
        return Committed([_told(fault)] * len(entries))
    parts = [commit([entry], worker) for entry in entries]
    return Committed(*(list(chain.from_iterable(part)) for part in zip(*parts, strict=True)))


def commit_one(unit: Unit, item: Any) -> Any:
    """Do one entry and return its result or raise its error."""
    (outcome,) = commit([(unit, item)]).outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def note(tx: Transaction, items: Sequence[tuple[Actor, str, str]]) -> list[None]:
    """Leave an audit row for what changes no row of its own: (who, what, to what)."""
    for actor, action, target in items:
        tx.by(actor, action, target)
    return [None] * len(items)


def _transact(entries: Sequence[tuple[Unit, Any]], worker: Worker | None) -> Committed:
    groups: dict[Unit, list[int]] = {}
    for index, (unit, _) in enumerate(entries):
        groups.setdefault(unit, []).append(index)
    outcomes: list[Outcome] = [None] * len(entries)
    tx = Transaction(worker=worker)
    with transaction.atomic():
        _guard(any(getattr(unit, "routing_lock", False) for unit in groups))
        for unit, indexes in groups.items():
            tx.flush()
            answers = unit(tx, [entries[index][1] for index in indexes])
            for index, answer in zip(indexes, answers, strict=True):
                outcomes[index] = answer
        AuditEntry.objects.bulk_create(tx.audit)
        _write(tx)
    return Committed(outcomes, tx.events, tx.claimed, tx.counted)


def _guard(routing: bool) -> None:
    if connection.vendor != "postgresql":
        return
    limits = f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_AFTER}'; SET LOCAL lock_timeout = '20s'"
    lock = f"; SELECT pg_advisory_xact_lock({ROUTING_LOCK})" if routing else ""
    with connection.cursor() as cursor:
        cursor.execute(limits + lock)


def _write(tx: Transaction) -> None:
    # Ids of events must be given out under the lock, or they do not follow commit order; so it is a
    # statement of its own, before them.
    now = bulk.as_moment(timezone.now())
    events = bulk.Rows(RoutingEvent, (*Fact._fields, "at"), [(str(event.kind), *event[1:], now) for event in tx.events])
    before = f"SELECT pg_advisory_xact_lock({EVENT_LOCK}), pg_notify('{EVENT_CHANNEL}', '')"
    bulk.insert(*tx.rows, events, after=before if tx.events else "")


def _told(error: Exception) -> Exception:
    """The error as the caller may see it."""
    if isinstance(error, IntegrityError):
        conflict = Conflict("Something else changed the same thing at the same moment; look again and repeat.")
        conflict.__cause__ = error
        return conflict
    if isinstance(error, DatabaseError):
        with suppress(Exception):
            connection.close_if_unusable_or_obsolete()
    return error
