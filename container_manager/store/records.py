"""Evaluations as bytes. Rarely changing fields of the fleet are stored once for many evaluations."""

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

_FIRST_CHANGING = HostState._fields.index("is_active")
CHANGING = tuple(name for name in HostState._fields[_FIRST_CHANGING:] if name != "grants")
"""The fields of a host that change often; the others are shared by all evaluations with the same values."""

_AS_TEXT = bytes.maketrans(b"\0\1\2", b"012")
_AS_VERDICTS = bytes.maketrans(b"012", b"\0\1\2")


class Recorded(NamedTuple):
    """A stored evaluation, and the version of the algorithm that made it."""

    evaluation: Evaluation
    algorithm: int


def is_stable(before: HostState, now: HostState) -> bool:
    """Whether the rarely changing fields are equal."""
    return before[:_FIRST_CHANGING] == now[:_FIRST_CHANGING] and before.grants == now.grants


def by_field(hosts: Sequence[HostState]) -> Columns:
    """Turn hosts into columns."""
    columns: list[Sequence[Any]] = [*zip(*hosts, strict=True)] or [()] * len(HostState._fields)
    return dict(zip(HostState._fields, columns, strict=True))


def stable_fields(columns: Columns) -> bytes:
    """The rarely changing fields: the same bytes for the same values."""
    stable = {name: values for name, values in columns.items() if name not in CHANGING}
    return orjson.dumps(stable, option=orjson.OPT_SORT_KEYS)


def pack_fleet(stable: bytes) -> bytes:
    """Compress the rarely changing fields. Host ids are stored as differences, which are shorter."""
    columns = orjson.loads(stable)
    ids = columns["id"]
    columns["id"] = [*ids[:1], *(after - before for before, after in pairwise(ids))]
    return lzma.compress(orjson.dumps(columns), preset=1)


def unpack_fleet(data: bytes) -> Columns:
    """Undo `pack_fleet`."""
    columns: dict[str, list[Any]] = orjson.loads(lzma.decompress(data))
    return columns | {"id": list(accumulate(columns["id"]))}


def pack(evaluation: Evaluation, hosts: Columns) -> bytes:
    """Compress the verdicts by check and the changing fields of the hosts: the minimum that `unpack` needs."""
    record = {
        "algorithm": router.ALGORITHM,
        "seed": evaluation.seed,
        "requirements": evaluation.requirements._asdict(),
        "codes": evaluation.codes,
        "verdicts": [column.translate(_AS_TEXT).decode() for column in evaluation.columns],
        "hosts": {name: hosts[name] for name in CHANGING},
    }
    return zlib.compress(orjson.dumps(record), 3)


def pack_differences(evaluation: Evaluation, places: Sequence[int]) -> bytes:
    """The same with the values of the hosts at these indexes only, for a class whose other hosts are as in its key."""
    hosts = by_field([evaluation.hosts[at] for at in places])
    record = {
        "algorithm": router.ALGORITHM,
        "seed": evaluation.seed,
        "at": places,
        "verdicts": [bytes([column[at] + ord("0") for at in places]).decode() for column in evaluation.columns],
        "hosts": {name: hosts[name] for name in CHANGING},
    }
    return zlib.compress(orjson.dumps(record), 1)


def unpack_differences(key: Recorded, data: bytes) -> Recorded:
    """Undo `pack_differences`, given the key."""
    raw: dict[str, Any] = orjson.loads(zlib.decompress(data))
    places, before = raw["at"], key.evaluation
    hosts, columns = list(before.hosts), [bytearray(column) for column in before.columns]
    for index, at in enumerate(places):
        hosts[at] = hosts[at]._replace(**{
            name: values[index] for name, values in raw["hosts"].items() if name in HostState._fields
        })  # fmt: skip
    for column, verdicts in zip(columns, raw["verdicts"], strict=True):
        for at, verdict in zip(places, verdicts, strict=True):
            column[at] = int(verdict)
    evaluation = before._replace(hosts=tuple(hosts), columns=tuple(map(bytes, columns)), seed=raw["seed"])
    return Recorded(evaluation, raw["algorithm"])


def unpack(fleet: Columns, data: bytes) -> Recorded:
    """Undo `pack`."""
    raw: dict[str, Any] = orjson.loads(zlib.decompress(data))
    # Fields that this version no longer has are dropped; replay of such a record is OTHER_VERSION by its algorithm.
    needs = {name: value for name, value in raw["requirements"].items() if name in JobRequirements._fields}
    needs["selector"] = tuple((key, value) for key, value in needs["selector"])
    for name in ("grants", "failed_hosts", "unfit_hosts"):
        needs[name] = tuple(needs.get(name, ()))
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
