"""Evaluations as bytes: what seldom changes of the fleet, once for many; what often does, and every check, for each."""

import lzma
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import orjson

from container_manager.routing import router
from container_manager.routing.types import Evaluation, HostState, JobRequirements

Columns = Mapping[str, Sequence[Any]]
"""The values of all hosts, by field of HostState."""

OFTEN = tuple(name for name in HostState._fields[HostState._fields.index("is_active") :] if name != "grants")
"""The fields that often change; the others are kept once for all evaluations that saw the same."""

_AS_TEXT = bytes.maketrans(b"\0\1\2", b"012")
_AS_VERDICTS = bytes.maketrans(b"012", b"\0\1\2")


class Recorded(NamedTuple):
    """An evaluation as it was kept, and the version of the algorithm that made it."""

    evaluation: Evaluation
    algorithm: int


def by_field(hosts: Sequence[HostState]) -> Columns:
    """Turn hosts into columns."""
    columns: list[Sequence[Any]] = [*zip(*hosts, strict=True)] or [()] * len(HostState._fields)
    return dict(zip(HostState._fields, columns, strict=True))


def seldom(columns: Columns) -> bytes:
    """What seldom changes, the same bytes for the same values."""
    kept = {name: values for name, values in columns.items() if name not in OFTEN}
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)


def pack_fleet(seldom: bytes) -> bytes:
    """Compress what seldom changes. Ids of hosts lie close together: their distances are shorter."""
    columns = orjson.loads(seldom)
    ids = columns["id"]
    columns["id"] = [*ids[:1], *(after - before for before, after in pairwise(ids))]
    return lzma.compress(orjson.dumps(columns), preset=1)


def unpack_fleet(data: bytes) -> Columns:
    """Undo `pack_fleet`."""
    columns: dict[str, list[Any]] = orjson.loads(lzma.decompress(data))
    return columns | {"id": list(accumulate(columns["id"]))}


def pack(evaluation: Evaluation, hosts: Columns) -> bytes:
    """Compress what often changes of the hosts, and the verdicts, by check: the least that `unpack` needs."""
    record = {
        "algorithm": router.ALGORITHM,
        "seed": evaluation.seed,
        "requirements": evaluation.requirements._asdict(),
        "codes": evaluation.codes,
        "verdicts": [column.translate(_AS_TEXT).decode() for column in evaluation.columns],
        "hosts": {name: hosts[name] for name in OFTEN},
    }
    return zlib.compress(orjson.dumps(record), 3)


def unpack(fleet: Columns, data: bytes) -> Recorded:
    """Undo `pack`."""
    raw: dict[str, Any] = orjson.loads(zlib.decompress(data))
    # Fields that this version no longer has are left out; such a record says OTHER_VERSION by its algorithm.
    needs = {name: value for name, value in raw["requirements"].items() if name in JobRequirements._fields}
    needs["selector"] = tuple((key, value) for key, value in needs["selector"])
    needs["grants"] = tuple(needs.get("grants", ()))
    columns = {name: values for name, values in {**fleet, **raw["hosts"]}.items() if name in HostState._fields}
    rows = zip(*columns.values(), strict=True)
    evaluation = Evaluation(
        requirements=JobRequirements(**needs),
        hosts=tuple([HostState(**dict(zip(columns, row, strict=True))) for row in rows]),
        codes=tuple(raw["codes"]),
        columns=tuple([column.encode().translate(_AS_VERDICTS) for column in raw["verdicts"]]),
        seed=raw["seed"],
    )
    return Recorded(evaluation, raw["algorithm"])
