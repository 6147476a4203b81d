"""How one of several feasible hosts is chosen. A chooser serves one class and forgets hosts that fill up."""

import random
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import accumulate
from typing import Protocol

from container_manager.routing.types import HostState

UNLIMITED = 1 << 60


class Chooser(Protocol):
    """Picks a host for one uniform number in [0, 1); None when all are full."""

    def pick(self, uniform: float) -> int | None: ...


class Weighted:
    """A draw by weight, by the formula of `random.choices`; uniform where no host has a weight."""

    def __init__(self, hosts: Sequence[HostState], room: Mapping[int, int], _: random.Random) -> None:
        self._ids = [host.id for host in hosts]
        self._weights = [host.weight for host in hosts]
        self._room = dict(room)
        self._accumulate()

    def _accumulate(self) -> None:
        uniform = not any(self._weights)
        self._cumulative = list(accumulate([1] * len(self._ids) if uniform else self._weights))

    def pick(self, uniform: float) -> int | None:
        if not self._ids:
            return None
        at = bisect(self._cumulative, uniform * self._cumulative[-1], 0, len(self._ids) - 1)
        chosen = self._ids[at]
        self._room[chosen] -= 1
        if not self._room[chosen]:
            del self._ids[at], self._weights[at]
            self._accumulate()
        return chosen


class Balanced:
    """The least (n + 0.5) / weight, n being the host's active jobs; ties at random."""

    def __init__(self, hosts: Sequence[HostState], room: Mapping[int, int], rng: random.Random) -> None:
        self._hosts = {host.id: host for host in hosts}
        self._room = dict(room)
        self._jobs = {host.id: host.jobs for host in hosts}
        self._rng = rng
        self._heap = [(self._score(host.id), rng.random(), host.id) for host in hosts]
        heapify(self._heap)

    def _score(self, host: int) -> float:
        return (self._jobs[host] + 0.5) / (self._hosts[host].weight or 1)

    def pick(self, uniform: float) -> int | None:
        if not self._heap:
            return None
        chosen = self._heap[0][2]
        self._jobs[chosen] += 1
        self._room[chosen] -= 1
        if self._room[chosen]:
            heapreplace(self._heap, (self._score(chosen), uniform, chosen))
        else:
            heappop(self._heap)
        return chosen


class Packed:
    """The fullest host that fits, until it is full."""

    def __init__(self, hosts: Sequence[HostState], room: Mapping[int, int], _: random.Random) -> None:
        # Filling a host only makes it fuller, so the order of the start holds to the end.
        self._order = [host.id for host in sorted(hosts, key=lambda host: (_fullness(host), -host.id))]
        self._room = dict(room)

    def pick(self, uniform: float) -> int | None:  # noqa: ARG002 - one signature for all choosers
        if not self._order:
            return None
        chosen = self._order[-1]
        self._room[chosen] -= 1
        if not self._room[chosen]:
            self._order.pop()
        return chosen


def _fullness(host: HostState) -> float:
    pairs = ((host.jobs, host.max_jobs), (host.memory, host.max_memory), (host.cpu, host.max_cpu))
    return max((used / limit for used, limit in pairs if limit), default=0.0)


STRATEGIES: dict[str, Callable[[Sequence[HostState], Mapping[int, int], random.Random], Chooser]] = {
    "weighted": Weighted,
    "balanced": Balanced,
    "packed": Packed,
}
