"""Where the hosts of a kept fleet stand for one class, so that a draw by weight costs the logarithm of their number."""

from array import array
from collections.abc import Callable, Collection, Sequence

from container_manager.routing.strategies import Filling, Room
from container_manager.routing.types import Evaluation, HostState, JobRequirements

NOWHERE = 255


class _Tree:
    """Weights by place, with their sums kept in a binary indexed tree (Fenwick, 1994)."""

    def __init__(self, size: int) -> None:
        self._sums = array("q", bytes(8 * (size + 1)))
        self._highest = 1 << size.bit_length() >> 1
        self.total = 0
        self.count = 0

    def fill(self, weights: dict[int, int]) -> None:
        """Set the weights of an empty tree."""
        sums = self._sums
        for place, weight in weights.items():
            sums[place + 1] = weight
        for at in range(1, len(sums)):
            above = at + (at & -at)
            if above < len(sums):
                sums[above] += sums[at]
        self.total, self.count = sum(weights.values()), len(weights)

    def add(self, place: int, weight: int) -> None:
        """Let the place have this weight; with a negative one, let it have no longer."""
        sums, at = self._sums, place + 1
        self.total += weight
        self.count += 1 if weight > 0 else -1
        while at < len(sums):
            sums[at] += weight
            at += at & -at

    def find(self, uniform: float) -> int:
        """The place that `random.choices` takes for this number in [0, 1)."""
        # As the product is rounded, it may be the total.
        wanted = min(uniform * self.total, self.total - 1)
        sums, at, step, before = self._sums, 0, self._highest, 0
        while step:
            if at + step < len(sums) and before + sums[at + step] <= wanted:
                at += step
                before += sums[at]
            step >>= 1
        return at


class _Draw:
    """A chooser for one tier: a draw by weight from its tree."""

    def __init__(self, tree: _Tree, filling: Filling, remove: Callable[[int], None]) -> None:
        self._tree = tree
        self._filling = filling
        self._remove = remove

    def pick(self, uniform: float) -> int | None:
        if not self._tree.count:
            return None
        chosen = self._tree.find(uniform)
        if not self._filling.take(chosen):
            self._remove(chosen)
        return chosen


class Standing:
    """The tier of each host for one class, and for each tier the weights of its hosts.

    `tier_of`: the tier of a host for the class; `version`: that of the fleet.
    """

    def __init__(self, evaluation: Evaluation, tier_of: Callable[[HostState, JobRequirements], int]) -> None:
        self._tier_of = tier_of
        self._tiers = bytearray([NOWHERE]) * len(evaluation.hosts)
        self._weights = array("q", bytes(8 * len(evaluation.hosts)))
        self._trees: dict[int, _Tree] = {}
        self.version = 0
        found: dict[int, dict[int, int]] = {}
        job, hosts = evaluation.requirements, evaluation.hosts
        for at in evaluation.feasible():
            key = tier_of(hosts[at], job)
            self._tiers[at] = key
            self._weights[at] = found.setdefault(key, {})[at] = hosts[at].weight or 1
        for key, weights in found.items():
            self._tree(key).fill(weights)

    @property
    def feasible(self) -> int:
        """How many hosts pass every check."""
        return sum(tree.count for tree in self._trees.values())

    def rivals(self) -> dict[int, tuple[int, int]]:
        """The number of hosts in each tier and the sum of their weights."""
        # The hosts of an odd tier weigh nothing, and count as 1 here.
        return {key: (tree.count, 0 if key & 1 else tree.total) for key, tree in self._trees.items()}

    def update(self, evaluation: Evaluation, changed: Collection[int]) -> None:
        """Look again at the hosts with these indexes."""
        job, hosts, columns = evaluation.requirements, evaluation.hosts, evaluation.columns
        for at in changed:
            fails = any(column[at] for column in columns)
            key = NOWHERE if fails else self._tier_of(hosts[at], job)
            weight = hosts[at].weight or 1
            if key != self._tiers[at] or weight != self._weights[at]:
                self._remove(at)
                if key != NOWHERE:
                    self._tiers[at], self._weights[at] = key, weight
                    self._tree(key).add(at, weight)

    def choosers(self, room: Room, hosts: Sequence[HostState]) -> list["_Draw"]:
        """For each tier, in their order, what picks from its tree. Full hosts are dropped until `update` sees them."""
        filling = Filling(hosts, room)
        return [_Draw(tree, filling, self._remove) for _, tree in sorted(self._trees.items())]

    def _tree(self, key: int) -> _Tree:
        if key not in self._trees:
            self._trees[key] = _Tree(len(self._tiers))
        return self._trees[key]

    def _remove(self, at: int) -> None:
        if self._tiers[at] != NOWHERE:
            self._trees[self._tiers[at]].add(at, -self._weights[at])
            self._tiers[at] = NOWHERE
