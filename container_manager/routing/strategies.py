"""How one of several feasible hosts is chosen. A chooser serves one class and drops hosts that are full."""

import random
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import accumulate
from typing import Protocol

from container_manager.routing.types import HostState

UNLIMITED = 1 << 60

Hosts = Mapping[int, HostState]
"""Feasible hosts by their index in the evaluation."""

Room = Callable[[HostState], int]
"""How many jobs of the class fit on a host; at least one, because it is feasible."""


class Chooser(Protocol):
    """Picks the index of a host for one uniform number in [0, 1); None when all are full."""

    def pick(self, uniform: float) -> int | None: ...


class Filling:
    """Counts down the room of chosen hosts. Room is computed when a host is first chosen, because most never are."""

    def __init__(self, hosts: Hosts | Sequence[HostState], room: Room) -> None:
        self._hosts = hosts
        self._room = room
        self._left: dict[int, int] = {}

    def take(self, place: int) -> bool:
        """Put one job on the host; returns whether another one fits."""
        left = self._left.get(place) or self._room(self._hosts[place])
        self._left[place] = left - 1
        return left > 1


class Weighted:
    """A draw by weight with the formula of `random.choices`; uniform when all weights are 0."""

    def __init__(self, hosts: Hosts, room: Room, _: random.Random) -> None:
        self._places = list(hosts)
        self._weights = [host.weight for host in hosts.values()]
        self._filling = Filling(hosts, room)
        self._accumulate()

    def _accumulate(self) -> None:
        uniform = not any(self._weights)
        self._cumulative = list(accumulate([1] * len(self._places) if uniform else self._weights))

    def pick(self, uniform: float) -> int | None:
        if not self._places:
            return None
        at = bisect(self._cumulative, uniform * self._cumulative[-1], 0, len(self._places) - 1)
        chosen = self._places[at]
        if not self._filling.take(chosen):
            del self._places[at], self._weights[at]
            self._accumulate()
        return chosen


class Balanced:
    """The least (n + 0.5) / weight, n being the host's active jobs; ties at random."""

    def __init__(self, hosts: Hosts, room: Room, rng: random.Random) -> None:
        self._jobs = {place: host.jobs for place, host in hosts.items()}
        self._weights = {place: host.weight or 1 for place, host in hosts.items()}
        self._filling = Filling(hosts, room)
        self._heap = [(self._score(place), rng.random(), place) for place in hosts]
        heapify(self._heap)

    def _score(self, place: int) -> float:
        return (self._jobs[place] + 0.5) / self._weights[place]

    def pick(self, uniform: float) -> int | None:
        if not self._heap:
            return None
        chosen = self._heap[0][2]
        self._jobs[chosen] += 1
        if self._filling.take(chosen):
            heapreplace(self._heap, (self._score(chosen), uniform, chosen))
        else:
            heappop(self._heap)
        return chosen


class Packed:
    """The fullest host that fits, until it is full."""

    def __init__(self, hosts: Hosts, room: Room, _: random.Random) -> None:
        # A host that takes jobs only becomes fuller, so the initial order stays right.
        self._order = sorted(hosts, key=lambda place: (_fullness(hosts[place]), -hosts[place].id))
        self._filling = Filling(hosts, room)

    def pick(self, uniform: float) -> int | None:  # noqa: ARG002 - one signature for all choosers
        if not self._order:
            return None
        chosen = self._order[-1]
        if not self._filling.take(chosen):
            self._order.pop()
        return chosen


def _fullness(host: HostState) -> float:
    pairs = ((host.jobs, host.max_jobs), (host.memory, host.max_memory), (host.cpu, host.max_cpu))
    return max((used / limit for used, limit in pairs if limit), default=0.0)


STRATEGIES: dict[str, Callable[[Hosts, Room, random.Random], Chooser]] = {
    "weighted": Weighted,
    "balanced": Balanced,
    "packed": Packed,
}
