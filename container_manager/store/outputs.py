"""The output of jobs, as it is stored: its parts, lines and cursors."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import orjson

from container_manager.executors.output import Output, OutputLine, read_lines
from container_manager.models import JobOutput

NOTES, OUTPUT = 0, 1
"""The parts of an attempt's output: what this service says about the launch, and what the container wrote."""

UNPACKED_AT_ONCE = 65_536


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
    """One stored part of an attempt's output; its lines are read when they are asked for."""

    job_id: int
    attempt: int
    part: int

    def lines(self) -> Iterator[LogLine]:
        """Its lines with their cursors, unpacked as far as they are taken. Reads the database."""
        row = JobOutput.objects.filter(job_id=self.job_id, attempt=self.attempt, part=self.part)
        data = row.values_list("lines", flat=True).first()
        return map(Numbering(self.attempt, self.part), _unpacked(b"" if data is None else bytes(data)))


def _unpacked(data: bytes) -> Iterator[OutputLine]:
    chunks = _chunks(data)
    first = next(chunks, b"")
    if first.startswith(b"["):
        # The format of earlier versions.
        return (OutputLine(*line) for line in orjson.loads(b"".join([first, *chunks])))
    return read_lines(chain([first], chunks))


def _chunks(data: bytes) -> Iterator[bytes]:
    inflate = zlib.decompressobj()
    while data:
        yield inflate.decompress(data, UNPACKED_AT_ONCE)
        data = inflate.unconsumed_tail


def of_jobs(job_ids: Iterable[int]) -> dict[int, list[Part]]:
    """The parts of each job's output, oldest first, without their lines."""
    found: dict[int, list[Part]] = {job_id: [] for job_id in job_ids}
    rows = JobOutput.objects.filter(job_id__in=found).order_by("attempt", "part")
    for row in rows.values_list("job_id", "attempt", "part"):
        found[row[0]].append(Part(*row))
    return found


def compress(output: Output) -> bytes:
    """Output as it is stored."""
    return zlib.compress(output.packed) if output else b""


def lines_after(parts: Sequence[Part], after: LogCursor | None) -> Iterator[LogLine]:
    """The lines after the one at `after`; if it is not among them, those with a greater cursor."""
    if after is None:
        return chain.from_iterable(part.lines() for part in parts)
    here = [part for part in parts if part[1:] == after[:2]]
    later = chain.from_iterable(part.lines() for part in parts if part[1:] > after[:2])
    for part in here:
        rest = part.lines()
        if any(line.cursor == after for line in rest):
            return chain(rest, later)
        return chain((line for line in part.lines() if line.cursor > after), later)
    return later


class Wanted(NamedTuple):
    """A page of a job's output: at most `limit` lines after a cursor."""

    job_id: int
    after: LogCursor | None
    limit: int


class TooMuchTextError(Exception):
    """The pages that were asked for have too many characters together."""


def pages(wanted: Iterable[Wanted], most: int) -> dict[Wanted, list[LogLine]]:
    """The lines of each page. Of each output, only the parts that it shows are read, one at a time.

    Raises:
        TooMuchTextError: together they have more than `most` characters.
    """
    pages = set(wanted)
    parts = of_jobs({one.job_id for one in pages})
    found: dict[Wanted, list[LogLine]] = {one: [] for one in pages}
    for one, lines in found.items():
        for line in islice(lines_after(parts[one.job_id], one.after), one.limit):
            lines.append(line)
            most -= len(line.line.text)
            if most < 0:
                raise TooMuchTextError
    return found
