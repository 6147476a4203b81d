"""The output of Cloud Run jobs, from Cloud Logging. It imports google-cloud-logging, the extra `cloudrun-logs`."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc
import orjson
from google.api_core import exceptions as errors
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2AsyncClient
from google.cloud.logging_v2.services.logging_service_v2.transports import LoggingServiceV2GrpcAsyncIOTransport
from google.cloud.logging_v2.types import ListLogEntriesRequest, LogEntry
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from container_manager.aio import cancel_and_wait
from container_manager.executors.cloudrun.channel import open_channel
from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import (
    ExecutorClosedError,
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
)
from container_manager.executors.output import OutputLine

ENDPOINT = "logging.googleapis.com"
PAGE, MOST_PAGES = 1000, 10
"""Entries per call, and calls per answer. Google allows about 60 calls a minute."""

JOBS_AT_ONCE = 20
INTERVAL, FOLLOW_EVERY = 1.0, 5.0
"""Seconds between two calls for a host, and between two reads of the output of one running job."""

LATE, SILENT, LATEST = 2.0, 10.0, 30.0
"""Entries arrive after the end of a job: its output is read again every LATE seconds until nothing is new, for at least
SILENT seconds when there is no line yet, and for at most LATEST seconds."""

LONGEST_INTERVAL = 30.0
"""Seconds between two calls when a quota of Cloud Logging is used up."""

CALL_TIMEOUT = 30.0
STREAMS = {"stdout": "stdout", "stderr": "stderr", "varlog/system": "stderr"}
_LOGS = " OR ".join(f'log_id("run.googleapis.com/{name}")' for name in STREAMS)


class Answer(NamedTuple):
    """The output of a job from some time on, in order. When it is not `complete`, later lines are missing."""

    lines: list[OutputLine]
    complete: bool


Asked = tuple[str, int]
"""A job's id, and the nanosecond from which its output is wanted."""


class CloudRunLogs:
    """Reads for many jobs at once: requests within an interval share a call."""

    def __init__(self, name: str, config: CloudRunConfig, channel: grpc.aio.Channel, limit: int) -> None:
        self._where, self._config, self._channel, self._limit = f"host {name}", config, channel, limit
        self._client = LoggingServiceV2AsyncClient(transport=LoggingServiceV2GrpcAsyncIOTransport(channel=channel))
        self._asked: defaultdict[Asked, list[asyncio.Future[Answer]]] = defaultdict(list)
        # Jobs with so much output that requests for others would wait for them.
        self._chatty: set[str] = set()
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    async def all_of(self, job_id: str) -> list[OutputLine]:
        """The whole output of an ended job, in order."""
        began = time.monotonic()
        lines, complete = await self._read(job_id, 0)
        while complete and (waited := time.monotonic() - began) < LATEST:
            await asyncio.sleep(LATE)
            before = len(lines)
            lines, complete = await self._read(job_id, 0)
            if len(lines) == before and (lines or waited >= SILENT):
                break
        if not complete:
            text = f"[container-manager: only the first {len(lines)} lines; Cloud Logging has the rest]"
            lines = [*lines, OutputLine("stderr", lines[-1].at_ns if lines else time.time_ns(), text)]
        return lines

    async def follow(
        self, job_id: str, since_ns: int, has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[OutputLine, None]:
        """The output of a job from that time on, until it has ended and no new line comes."""
        seen: set[OutputLine] = set()
        while True:
            over = await has_ended()
            lines = [line for line in (await self._read(job_id, since_ns)).lines if line not in seen]
            for line in lines:
                yield line
            if over and not lines:
                return
            # A line with the same time stamp may come later; lines that were yielded are not yielded again.
            since_ns = max([since_ns, *(line.at_ns for line in lines)])
            seen = {line for line in seen | set(lines) if line.at_ns >= since_ns}
            await asyncio.sleep(LATE if over else FOLLOW_EVERY)

    async def aclose(self) -> None:
        """Close the channel; waiting requests raise ExecutorClosedError."""
        self._closed = True
        await cancel_and_wait(self._reading)
        await self._channel.close(None)

    async def _read(self, job_id: str, since_ns: int) -> Answer:
        if self._closed:
            raise self._closed_error()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[job_id, since_ns].append(answer)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        """Answer all requests, with one call per interval, until there are none."""
        pause = INTERVAL
        try:
            while self._asked:
                # Requests of the same moment share the first call.
                await asyncio.sleep(pause)
                exhausted = await self._answer(self._next_batch())
                pause = min(pause * 4, LONGEST_INTERVAL) if exhausted else INTERVAL
        finally:
            if self._closed:
                for asked in list(self._asked):
                    self._reply(asked, self._closed_error())

    def _next_batch(self) -> list[Asked]:
        """The requests to answer next: all from the beginning, or all from later on; a job with much output alone."""
        first = next(iter(self._asked))
        if first[0] in self._chatty:
            return [first]
        alike = [asked for asked in self._asked if bool(asked[1]) == bool(first[1]) and asked[0] not in self._chatty]
        return alike[:JOBS_AT_ONCE]

    async def _answer(self, batch: list[Asked]) -> bool:
        """Answer a batch, unless one of its jobs has too much output; returns whether a quota is used up."""
        jobs = {job_id for job_id, _ in batch}
        try:
            found, complete = await self._entries(jobs, min(since for _, since in batch))
        except Exception as error:  # noqa: BLE001 - every request gets its error, whatever it is
            for asked in batch:
                self._reply(asked, self._translated(error))
            return isinstance(error, errors.ResourceExhausted)
        if not complete and len(jobs) > 1:
            self._chatty.add(max(jobs, key=lambda job_id: len(found[job_id])))
            return False
        for asked in batch:
            self._reply(asked, Answer([line for line in found[asked[0]] if line.at_ns >= asked[1]], complete))
        return False

    def _reply(self, asked: Asked, answer: Answer | ExecutorError) -> None:
        self._chatty.discard(asked[0])
        for waiting in self._asked.pop(asked, ()):
            if waiting.done():
                continue
            if isinstance(answer, Answer):
                waiting.set_result(answer)
            else:
                waiting.set_exception(answer)

    async def _entries(
        self, job_ids: Collection[str], since_ns: int
    ) -> tuple[defaultdict[str, list[OutputLine]], bool]:
        """The first lines of these jobs, and whether these are all lines."""
        found: defaultdict[str, list[OutputLine]] = defaultdict(list)
        request = ListLogEntriesRequest(
            resource_names=[f"projects/{self._config.project}"],
            filter=_filter(self._config.region, job_ids, since_ns),
            order_by="timestamp asc",
            page_size=PAGE,
        )
        pages = size = 0
        async with asyncio.timeout(CALL_TIMEOUT * 2):
            pager = await self._client.list_log_entries(request, timeout=CALL_TIMEOUT)
            async for page in pager.pages:
                for entry in page.entries:
                    lines = list(_lines(entry, self._limit // 4))
                    size += sum(len(line.text) for line in lines)
                    found[entry.resource.labels["job_name"]] += lines
                pages += 1
                if page.next_page_token and (pages == MOST_PAGES or size > self._limit * 4):
                    return found, False
        return found, True

    def _closed_error(self) -> ExecutorError:
        return ExecutorClosedError(f"{self._where}: its settings were changed.")

    def _translated(self, error: Exception) -> ExecutorError:
        if isinstance(error, (errors.PermissionDenied, errors.Unauthenticated)):
            return ExecutorOperationError(
                f"{self._where}: the credentials lack the permission logging.logEntries.list on project "
                f"{self._config.project}: {error.message}"
            )
        message = getattr(error, "message", "") or str(error) or "no answer in time"
        return ExecutorConnectionError(f"{self._where}: Cloud Logging: {message}")


async def open_logs(name: str, config: CloudRunConfig, limit: int) -> CloudRunLogs:
    """Connect. Must be called in the event loop that will use it. `limit`: the bytes that are kept of a job's output.

    Raises:
        ExecutorHostError: there are no credentials, or they cannot be read.
    """
    endpoint = config.logging_endpoint or (config.endpoint if config.plaintext else ENDPOINT)
    return CloudRunLogs(name, config, await open_channel(name, config, endpoint), limit)


def _filter(region: str, job_ids: Collection[str], since_ns: int) -> str:
    # In this filter language OR binds tighter than AND.
    jobs = " OR ".join(f'"{job_id}"' for job_id in job_ids)
    parts = [
        'resource.type="cloud_run_job"',
        f'resource.labels.location="{region}"',
        f"resource.labels.job_name=({jobs})",
        f"({_LOGS})",
    ]
    if since_ns:
        since = Timestamp()
        since.FromNanoseconds(since_ns)
        parts.append(f'timestamp>="{since.ToJsonString()}"')
    return " AND ".join(parts)


def _lines(entry: LogEntry, longest: int) -> Iterator[OutputLine]:
    message: Any = LogEntry.pb(entry)
    name = unquote(message.log_name).partition("run.googleapis.com/")[2]
    text = message.text_payload
    if (kind := message.WhichOneof("payload")) not in {"text_payload", None}:
        # Cloud Logging stores a line of JSON as an object.
        text = orjson.dumps(MessageToDict(getattr(message, kind))).decode()
    if name == "varlog/system":
        text = f"[Cloud Run: {text}]"
    for line in text.splitlines() or [""]:
        yield OutputLine(STREAMS.get(name, "stderr"), message.timestamp.ToNanoseconds(), line[:longest])
