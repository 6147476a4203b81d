"""The output of jobs, as it is stored: its parts, lines and cursors."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import orjson

from container_manager.executors.output import Output, OutputLine
from container_manager.models import JobOutput

NOTES, OUTPUT = 0, 1
"""The parts of an attempt's output: what this service says about the launch, and what the container wrote."""


class LogCursor(NamedTuple):
    """The position of a line in the whole output of a job; `nth` distinguishes lines of the same nanosecond.

    Lines are ordered by attempt, then by part. Within a part they have the container's order, which is mostly by time.
    """

    attempt: int
    part: int
    at_ns: int
    nth: int


class LogLine(NamedTuple):
    """A line with its cursor."""

    cursor: LogCursor
    line: OutputLine


class Numbering:
    """Gives the lines of one part their cursors, one after the other."""

    def __init__(self, attempt: int, part: int) -> None:
        self._last = LogCursor(attempt, part, -1, 0)

    def __call__(self, line: OutputLine) -> LogLine:
        last = self._last
        nth = last.nth + 1 if last.at_ns == line.at_ns else 0
        self._last = LogCursor(last.attempt, last.part, line.at_ns, nth)
        return LogLine(self._last, line)


class Part(NamedTuple):
    """One part of an attempt's output, as it is stored."""

    attempt: int
    part: int
    data: bytes

    def lines(self) -> Iterator[LogLine]:
        """Its lines with their cursors."""
        unpacked = zlib.decompress(self.data)
        if unpacked.startswith(b"["):
            # The format of earlier versions.
            return map(Numbering(*self[:2]), (OutputLine(*line) for line in orjson.loads(unpacked)))
        return map(Numbering(*self[:2]), Output(unpacked))


def of_jobs(job_ids: Iterable[int]) -> dict[int, list[Part]]:
    """The stored output of each job, oldest part first."""
    found: dict[int, list[Part]] = {job_id: [] for job_id in job_ids}
    rows = JobOutput.objects.filter(job_id__in=found).order_by("attempt", "part")
    for job_id, attempt, part, lines in rows.values_list("job_id", "attempt", "part", "lines"):
        found[job_id].append(Part(attempt, part, bytes(lines)))
    return found


def compress(output: Output) -> bytes:
    """Output as it is stored."""
    return zlib.compress(output.packed) if output else b""


def lines_after(parts: Sequence[Part], after: LogCursor | None) -> Iterator[LogLine]:
    """The lines after the one at `after`; if it is not among them, those with a greater cursor."""
    if after is None:
        return chain.from_iterable(part.lines() for part in parts)
    here = [part for part in parts if part[:2] == after[:2]]
    later = chain.from_iterable(part.lines() for part in parts if part[:2] > after[:2])
    for part in here:
        rest = part.lines()
        if any(line.cursor == after for line in rest):
            return chain(rest, later)
        return chain((line for line in part.lines() if line.cursor > after), later)
    return later


def page(parts: Sequence[Part], after: LogCursor | None, limit: int) -> list[LogLine]:
    """At most `limit` lines after `after`."""
    return list(islice(lines_after(parts, after), limit))
