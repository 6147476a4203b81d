"""The rows of hosts in memory, each for as long as it is the newest.

Reading a row takes a hundred times as long as comparing its revision, which triggers change with every change of it
(migration 0015). Configs are not kept, because they contain secrets.
"""

import threading
from collections.abc import Mapping

from container_manager.database import connection
from container_manager.models import ExecutorHost

MOST_KEPT = 10_000

_kept: dict[int, ExecutorHost] = {}
_lock = threading.Lock()


def newest(revisions: Mapping[int, int]) -> dict[int, ExecutorHost]:
    """Hosts by their ids, without their configs. Those that were deleted are left out.

    `revisions`: what their rows have now, by id. Every caller gets objects of its own, whose labels are shared.
    """
    with _lock:
        found = {pk: _kept[pk] for pk, revision in revisions.items() if pk in _kept and _kept[pk].revision == revision}
    missing = revisions.keys() - found.keys()
    if missing:
        read = ExecutorHost.objects.defer("config").in_bulk(list(missing))
        found |= read
        # What a transaction sees may be rolled back.
        if not connection.in_atomic_block:
            _keep(read)
    return {pk: _copy(found[pk]) for pk in revisions if pk in found}


def _keep(rows: Mapping[int, ExecutorHost]) -> None:
    with _lock:
        _kept.update(rows)
        for pk in list(_kept)[: max(len(_kept) - MOST_KEPT, 0)]:
            del _kept[pk]


def _copy(row: ExecutorHost) -> ExecutorHost:
    copy = ExecutorHost.__new__(ExecutorHost)
    copy.__dict__.update(row.__dict__)
    return copy
