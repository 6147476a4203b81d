"""The fleet view: this process's copy of all hosts with their usage, equal to the rows at every commit.

Triggers record how each statement changes what routing reads (migration 0010): the usage of hosts as differences, their
own rows by a mark. The view is the state of one database snapshot. To advance it, one statement reads the changes that
this snapshot did not see, so none is missed or counted twice, in whichever order transactions commit. The changes of
the reader's own transaction are put on a copy, because they may be rolled back.
"""

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from container_manager import clock
from container_manager.database import connection
from container_manager.observability import metrics
from container_manager.routing.router import Fleet
from container_manager.routing.types import HostState
from container_manager.store import bulk
from container_manager.store import fleet_changes as feed
from container_manager.store.fleet_changes import States, Until

logger = logging.getLogger(__name__)

KEPT = timedelta(minutes=10)
"""How long changes stay in the table."""

LONGEST_PAUSE = KEPT.total_seconds() / 2
"""A view that was not advanced for longer is read again, because changes may have been deleted."""

Seen = Mapping[int, HostState | None]
"""Hosts as one transaction sees them; None: it has deleted the host."""


class FleetView:
    """All hosts with their usage, by id. Every thread of the process may use it, each with its own connection."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._states: States = {}
        self._until: Until = {}
        """When the ejection and the cooldown of a host end, if it has had any."""
        self._own_until: Until = {}
        """The same of hosts that the present transaction has changed."""
        self._newest: feed.Change | None = None
        """A change that the view includes. If it is gone, this is another database, or an earlier state of it."""
        self._snapshot = ""
        self._unseen: int | None = None
        self._advanced_at = 0.0
        self._read_at = 0.0
        """It includes all that was committed before this moment of the monotonic clock."""
        self._unread: set[int] = set()
        self._fleet: Fleet | None = None
        self._places: dict[int, int] = {}
        self._differing: set[int] = set()
        """Hosts that may differ between the view and the fleet that decisions are made on."""
        self._version = 0
        self._beside: list[list[tuple[Any, ...]]] = []

    @property
    def size(self) -> int:
        """How many hosts it had when it was last advanced."""
        return len(self._states)

    def states(self) -> list[HostState]:
        """All hosts as this connection sees them now, by id."""
        called_at = time.monotonic()
        with self._lock:
            seen, timed = self._look_since(called_at)
            return [timed.get(pk) or state for pk, state in sorted(seen.items()) if state is not None]

    def of(self, ids: Iterable[int]) -> States:
        """Some hosts as this connection sees them now; those that do not exist are left out."""
        called_at = time.monotonic()
        with self._lock:
            seen, timed = self._look_since(called_at)
            return {pk: timed.get(pk) or state for pk in ids if (state := seen.get(pk)) is not None}

    def begin(self) -> None:
        """Advance the view at the start of a writing transaction, while it has changed nothing itself."""
        if connection.vendor != "postgresql":
            with self._lock:
                self._advance(is_fresh=True)

    def deciding(self, *beside: bulk.Query) -> tuple[Fleet, list[list[tuple[Any, ...]]]]:
        """The hosts as this transaction sees them, to decide on. The transaction holds the routing lock.

        It is the same object each time, so that what it has computed stays valid for hosts that have not changed.
        `beside`: queries for the same round trip, whose rows are the second result.
        """
        with self._lock:
            own, seen, timed = self._look(*beside)
            return self._decided_on(own, seen, timed), self._beside

    def _decided_on(self, own: Seen, seen: Seen, timed: States) -> Fleet:
        fleet = self._fleet
        if fleet is None or any(state is None or state.id not in self._places for state in own.values()):
            return self._new_fleet(own, seen, timed)
        made = fleet.changed_since(self._version)
        if made is None:
            return self._new_fleet(own, seen, timed)
        differing = self._differing | {fleet.hosts[at].id for at in made}
        for pk in (*differing, *own, *timed):
            at, state = self._places[pk], timed.get(pk) or seen[pk]
            if state is not None and fleet.hosts[at] != state:
                fleet.replace(at, state)
        self._differing = {*own, *timed}
        fleet.forget()
        self._version = fleet.version
        return fleet

    def _new_fleet(self, own: Seen, seen: Seen, timed: States) -> Fleet:
        states = {pk: state for pk, state in sorted(seen.items()) if state is not None}
        fleet = Fleet([timed.get(pk) or state for pk, state in states.items()], secrets.randbits(63), kept=True)
        # Hosts that this transaction has created or deleted may come back.
        self._fleet = fleet if states.keys() == self._states.keys() else None
        self._places = {pk: at for at, pk in enumerate(states)}
        self._differing, self._version = {*own, *timed}, fleet.version
        return fleet

    def _look(self, *beside: bulk.Query) -> tuple[Seen, Seen, States]:
        """Advance; returns what this transaction has changed, all hosts as it sees them, and `_timed` of them."""
        own = self._advance(*beside)
        seen: Seen = {**self._states, **own} if own else self._states
        return own, seen, self._timed(seen)

    def _look_since(self, moment: float) -> tuple[Seen, States]:
        """All hosts as this connection sees them, and `_timed` of them, read at some time after this moment.

        Outside of transactions this may be what another thread has read, for which this one has waited.
        """
        if self._newest is not None and self._read_at > moment and not connection.in_atomic_block:
            return self._states, self._timed(self._states)
        _, seen, timed = self._look()
        return seen, timed

    def differences(self) -> int:
        """Compare the view with the rows; returns how many hosts differ. If any does, the view is read again.

        It must be called outside of transactions, and keeps no other user of the view waiting.
        """
        copy = FleetView()
        with self._lock:
            copy._states, copy._until = dict(self._states), dict(self._until)
            copy._newest, copy._snapshot, copy._unseen = self._newest, self._snapshot, self._unseen
            copy._advanced_at, copy._unread = self._advanced_at, set(self._unread)
        wrong = copy._that_differ()
        if wrong:
            metrics.FLEET_VIEW_ERRORS.inc(len(wrong))
            logger.error("the fleet view differed from the rows of the hosts with the ids %s", sorted(wrong)[:20])
            with self._lock:
                self._newest = None
        return len(wrong)

    def _that_differ(self) -> set[int]:
        self._advance()
        if self._newest is None:
            return set()
        # Changes and usage are read by one statement, so that both are of the same snapshot.
        rows = bulk.together(feed.query(feed.since(self._newest, self._snapshot, self._unseen), usage=True))
        known = feed.parsed(*rows)
        if not self._is_continued(known):
            return set()
        self._apply(known)
        wrong = {pk for pk, state in self._states.items() if _used(state) != known.usage.get(pk, (0, 0, 0))}
        # A host may have changed between two statements, but not each time.
        return wrong | (self._hosts_that_differ() and self._hosts_that_differ())

    def _hosts_that_differ(self) -> set[int]:
        rows, _ = feed.read_hosts(None)
        self._advance()
        states = {pk: state._replace(jobs=0, memory=0, cpu=0) for pk, state in self._states.items()}
        return {pk for pk in states.keys() | rows.keys() if states.get(pk) != rows.get(pk)}

    # ------------------------------------------------------------------ advancing

    def _advance(self, *beside: bulk.Query, is_fresh: bool = False) -> dict[int, HostState | None]:
        """Advance the view to the committed state; returns the hosts that this transaction itself has changed."""
        began = time.monotonic()
        own = self._advanced(*beside, is_fresh=is_fresh)
        self._read_at = began
        return own

    def _advanced(self, *beside: bulk.Query, is_fresh: bool) -> dict[int, HostState | None]:
        if self._newest is None or time.monotonic() > self._advanced_at + LONGEST_PAUSE:
            self._beside = bulk.together(*beside) if beside else []
            return self._read_again(is_fresh)
        rows, *self._beside = bulk.together(feed.query(feed.since(self._newest, self._snapshot, self._unseen)), *beside)
        known = feed.parsed(rows)
        if not self._is_continued(known):
            return self._read_again(is_fresh)
        if connection.vendor != "postgresql" and connection.in_atomic_block and not is_fresh:
            # Whether other transactions have made these changes cannot be told; the next `begin` can.
            news = [change for change in known.changes if change.id > self._newest.id]
            known = known._replace(changes=[], own=news)
        self._apply(known)
        return self._with(known.own)

    def _is_continued(self, known: feed.Read) -> bool:
        assert self._newest is not None  # noqa: S101 - the caller has checked it
        return any(change[:2] == self._newest[:2] for change in known.changes)

    def _apply(self, known: feed.Read) -> None:
        assert self._newest is not None  # noqa: S101 - the caller has checked it
        seen = newest = self._newest
        news = [change for change in known.changes if change[:2] != seen[:2]]
        own = {change.host_id for change in known.own if change.host_changed}
        marked = {change.host_id for change in news if change.host_changed} | self._unread
        # Should a query fail, the view would include a part of the changes; it is read again then.
        self._newest = None
        # What this transaction has not committed stays out of the view.
        self._unread = marked & own
        self._read_marked(marked - own)
        for change in news:
            newest = max(newest, change)
            if (state := self._states.get(change.host_id)) is not None:
                self._states[change.host_id] = _moved(state, change)
                self._differing.add(change.host_id)
        self._newest, self._advanced_at = newest, time.monotonic()
        self._snapshot, self._unseen = known.snapshot, known.unseen

    def _read_marked(self, marked: set[int]) -> None:
        if not marked:
            return
        found, until = feed.read_hosts(marked)
        for pk in marked:
            before = self._states.get(pk)
            self._until.pop(pk, None)
            if (state := found.get(pk)) is None:
                self._states.pop(pk, None)
            else:
                self._states[pk] = _using(state, _used(before))
            if (before is None) != (state is None):
                self._fleet = None
        self._until |= until
        # A host may have been created and deleted since.
        self._differing |= marked & self._states.keys()

    def _read_again(self, is_fresh: bool) -> dict[int, HostState | None]:
        self._newest, self._fleet = None, None
        known = feed.parsed(*bulk.together(feed.query(feed.newest(), usage=True)))
        states, self._until = feed.read_hosts(None)
        self._states = {
            pk: _using(state, used) if (used := known.usage.get(pk)) else state for pk, state in states.items()
        }
        is_committed = is_fresh or connection.vendor == "postgresql" or not connection.in_atomic_block
        # Without a committed change to go on from, or with changes of our own in it, it is used only once.
        keeps = is_committed and known.changes and not known.own
        self._newest = max(known.changes) if keeps else None
        self._advanced_at = time.monotonic()
        self._snapshot, self._unseen = known.snapshot, known.unseen
        self._unread, self._own_until = set(), {}
        return {}

    def _with(self, own: Iterable[feed.Change]) -> dict[int, HostState | None]:
        changed: dict[int, HostState | None] = {}
        marked = {change.host_id for change in own if change.host_changed}
        found, self._own_until = feed.read_hosts(marked) if marked else ({}, {})
        self._own_until = {**dict.fromkeys(marked, (None, None)), **self._own_until}
        for pk in marked:
            state = found.get(pk)
            changed[pk] = state and _using(state, _used(self._states.get(pk)))
        for change in own:
            state = changed[change.host_id] if change.host_id in changed else self._states.get(change.host_id)
            if state is not None:
                changed[change.host_id] = _moved(state, change)
        return changed

    def _timed(self, states: Seen) -> States:
        """The hosts that are ejected or cooling, or whose own transaction has ended that."""
        now = clock.now()
        for pk in [pk for pk, ends in self._until.items() if not any(end and end > now for end in ends)]:
            del self._until[pk]
            self._differing.add(pk)
        until = self._until | self._own_until
        ejected = {pk for pk, (ends, _) in until.items() if ends is not None and ends > now}
        serving = Counter(
            state.executor_type
            for state in (states.values() if ejected else ())
            if state is not None and state.is_active and not state.is_draining and state.health == "healthy"
            and state.id not in ejected
        )  # fmt: skip
        found = {}
        for pk, (_, cooldown) in until.items():
            if (state := states.get(pk)) is not None:
                # The last host of its executor type that is in service does not count as ejected.
                is_ejected = pk in ejected and serving[state.executor_type] > 0
                found[pk] = state._replace(ejected=is_ejected, cooling=cooldown is not None and cooldown > now)
        return found


def _moved(state: HostState, change: feed.Change) -> HostState:
    return state._replace(
        jobs=state.jobs + change.jobs, memory=state.memory + change.memory, cpu=state.cpu + change.cpu
    )


def _used(state: HostState | None) -> tuple[int, int, int]:
    return (state.jobs, state.memory, state.cpu) if state else (0, 0, 0)


def _using(state: HostState, used: tuple[int, int, int]) -> HostState:
    return state._replace(jobs=used[0], memory=used[1], cpu=used[2])


deciding_view, reading_view = FleetView(), FleetView()


def view() -> FleetView:
    """The view for this connection: transactions have one of their own, so that they never wait for a slow reader."""
    return deciding_view if connection.in_atomic_block else reading_view


def states() -> list[HostState]:
    """All hosts as this connection sees them now, by id."""
    return view().states()
