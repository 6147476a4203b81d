"""What Cloud Run jobs write, from Cloud Logging. Imports google-cloud-logging, which is the extra `cloudrun-logs`."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from typing import Any
from urllib.parse import unquote

import grpc
import orjson
from google.api_core import exceptions as errors
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2AsyncClient
from google.cloud.logging_v2.services.logging_service_v2.transports import LoggingServiceV2GrpcAsyncIOTransport
from google.cloud.logging_v2.types import ListLogEntriesRequest, LogEntry
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from container_manager.executors.cloudrun_api import open_channel
from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import (
    ExecutorConnectionError,
    ExecutorError,
    ExecutorOperationError,
)
from container_manager.executors.output import OutputLine

ENDPOINT = "logging.googleapis.com"
PAGE, MOST_PAGES = 1000, 10
"""Entries that come with one call, and calls that one job's output may take: reading is counted, 60 a minute."""

JOBS_AT_ONCE = 20
INTERVAL, FOLLOW_EVERY = 1.0, 5.0
"""Seconds between two reads of a host, and between two of what one job writes while it runs."""

LATE, MOST_READS = 2.0, 5
"""Entries come after the end: it is read again after so many seconds, until nothing is new, at most so often."""

LONGEST_INTERVAL = 30.0
"""When a quota of Cloud Logging is used up."""

CALL_TIMEOUT = 30.0
STREAMS = {"stdout": "stdout", "stderr": "stderr", "varlog/system": "stderr"}
_LOGS = " OR ".join(f'log_id("run.googleapis.com/{name}")' for name in STREAMS)


class CloudRunLogs:
    """Reads for many jobs at once: those that ask within an interval share a call."""

    def __init__(self, name: str, config: CloudRunConfig, channel: grpc.aio.Channel) -> None:
        self._where, self._config, self._channel = f"host {name}", config, channel
        self._client = LoggingServiceV2AsyncClient(transport=LoggingServiceV2GrpcAsyncIOTransport(channel=channel))
        self._asked: dict[str, tuple[int, list[asyncio.Future[list[OutputLine]]]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def all_of(self, job_id: str) -> list[OutputLine]:
        """What an ended job wrote, in order."""
        lines = await self._read(job_id, 0)
        for _ in range(MOST_READS - 1):
            await asyncio.sleep(LATE)
            before, lines = len(lines), await self._read(job_id, 0)
            if len(lines) == before:
                break
        if len(lines) >= PAGE * MOST_PAGES:
            text = f"[container-manager: only the first {len(lines)} lines; Cloud Logging has the rest]"
            lines.append(OutputLine("stderr", lines[-1].at_ns, text))
        return lines

    async def follow(
        self, job_id: str, since_ns: int, has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[OutputLine, None]:
        """What a job writes from that time on, until it has ended and nothing new has come."""
        told: set[OutputLine] = set()
        while True:
            over = await has_ended()
            lines = [line for line in await self._read(job_id, since_ns) if line not in told]
            for line in lines:
                yield line
            if over and not lines:
                return
            # What is stamped alike may come later; what was told is not told again.
            since_ns = max([since_ns, *(line.at_ns for line in lines)])
            told = {line for line in told | set(lines) if line.at_ns >= since_ns}
            await asyncio.sleep(LATE if over else FOLLOW_EVERY)

    async def aclose(self) -> None:
        """Hang up; who waits gets an ExecutorConnectionError."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._channel.close(None)

    async def _read(self, job_id: str, since_ns: int) -> list[OutputLine]:
        answer: asyncio.Future[list[OutputLine]] = asyncio.get_running_loop().create_future()
        since, waiting = self._asked.setdefault(job_id, (since_ns, []))
        self._asked[job_id] = (min(since, since_ns), [*waiting, answer])
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._answer())
        return [line for line in await answer if line.at_ns >= since_ns]

    async def _answer(self) -> None:
        """Read for all who ask, a call an interval, until nobody asks."""
        pause = INTERVAL
        while self._asked:
            # Those who ask at the same moment share the first call.
            await asyncio.sleep(pause)
            batch = {job_id: self._asked.pop(job_id) for job_id in list(self._asked)[:JOBS_AT_ONCE]}
            try:
                found = await self._entries(batch, min(since for since, _ in batch.values()))
            except asyncio.CancelledError:
                self._refuse(batch, ExecutorConnectionError(f"{self._where}: its settings were changed."))
                raise
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                self._refuse(batch, self._translated(error))
                if isinstance(error, errors.ResourceExhausted):
                    pause = min(pause * 4, LONGEST_INTERVAL)
                continue
            pause = INTERVAL
            for job_id, (_, waiting) in batch.items():
                for answer in waiting:
                    if not answer.done():
                        answer.set_result(found[job_id])

    def _refuse(
        self, batch: dict[str, tuple[int, list[asyncio.Future[list[OutputLine]]]]], error: ExecutorError
    ) -> None:
        for _, waiting in batch.values():
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(error)

    async def _entries(self, job_ids: Collection[str], since_ns: int) -> defaultdict[str, list[OutputLine]]:
        found: defaultdict[str, list[OutputLine]] = defaultdict(list)
        request = ListLogEntriesRequest(
            resource_names=[f"projects/{self._config.project}"],
            filter=_filter(self._config.region, job_ids, since_ns),
            order_by="timestamp asc",
            page_size=PAGE,
        )
        async with asyncio.timeout(CALL_TIMEOUT * 2):
            pager = await self._client.list_log_entries(request, timeout=CALL_TIMEOUT)
            left = MOST_PAGES * len(job_ids)
            async for page in pager.pages:
                for entry in page.entries:
                    found[entry.resource.labels["job_name"]] += _lines(entry)
                left -= 1
                if not left:
                    break
        for lines in found.values():
            del lines[PAGE * MOST_PAGES :]
        return found

    def _translated(self, error: Exception) -> ExecutorError:
        if isinstance(error, (errors.PermissionDenied, errors.Unauthenticated)):
            return ExecutorOperationError(
                f"{self._where}: the credentials lack the permission logging.logEntries.list on project "
                f"{self._config.project}: {error.message}"
            )
        said = getattr(error, "message", "") or str(error) or "no answer in time"
        return ExecutorConnectionError(f"{self._where}: Cloud Logging: {said}")


async def open_logs(name: str, config: CloudRunConfig) -> CloudRunLogs:
    """Connect. Must be called in the event loop that will use it. Raises ExecutorHostError for bad credentials."""
    endpoint = config.logging_endpoint or (config.endpoint if config.plaintext else ENDPOINT)
    return CloudRunLogs(name, config, await open_channel(name, config, endpoint))


def _filter(region: str, job_ids: Collection[str], since_ns: int) -> str:
    # OR binds tighter than AND in this language.
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


def _lines(entry: LogEntry) -> Iterator[OutputLine]:
    message: Any = LogEntry.pb(entry)
    name = unquote(message.log_name).partition("run.googleapis.com/")[2]
    # A line that is JSON is kept as an object.
    text = message.text_payload or orjson.dumps(MessageToDict(message.json_payload)).decode()
    if name == "varlog/system":
        text = f"[Cloud Run: {text}]"
    for line in text.splitlines() or [""]:
        yield OutputLine(STREAMS.get(name, "stderr"), message.timestamp.ToNanoseconds(), line)
