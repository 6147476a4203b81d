"""A local Cloud Run: the real protobuf types over gRPC, as strict as the documentation, and able to fail.

What a job does follows from its command, as the simulated executor reads it: `sleep S`, `echo TEXT`, `exit N`, and
`oom`, joined by `;`. Its regions share jobs of one project; time alone moves executions on.
"""

import random
import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
from google.cloud import run_v2
from google.cloud.logging_v2.types import ListLogEntriesRequest, ListLogEntriesResponse, LogEntry
from google.longrunning import operations_pb2

PROJECT = "demo-project"
REGIONS = ("europe-west1", "us-central1", "asia-east1")
JOB_ID = re.compile(r"[a-z]([-a-z0-9]{0,47}[a-z0-9])?")
LABEL_KEY, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
IMAGE = re.compile(r"((docker\.io|([a-z0-9-]+\.)?gcr\.io|([a-z0-9-]+-)?docker\.pkg\.dev)/)?[a-z0-9_/.-]+(:[\w.-]+)?")
MEMORY = {1: (512, 4096), 2: (512, 8192), 4: (2048, 16384), 6: (4096, 24576), 8: (4096, 32768)}
PER_MINUTE = {"read": 3000, "write": 300, "run": 180, "list": 120, "log": 600}
"""Calls per minute and region. Fewer lists are allowed here than in reality, so that polling job by job would show."""

KINDS = {"CreateJob": "write", "DeleteJob": "write", "CancelExecution": "write", "RunJob": "run",
         "ListJobs": "list", "ListExecutions": "list", "ListLogEntries": "log"}  # fmt: skip
Code = grpc.StatusCode
Reason = run_v2.Condition.ExecutionReason
State = run_v2.Condition.State


class Refused(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Run:
    """An execution. Its start and end are known in advance, unless it is cancelled."""

    job: run_v2.Job
    name: str
    created: float
    starts: float
    ends: float
    exit_code: int
    lines: list[tuple[float, str, str]]
    out_of_memory: bool = False
    timed_out: bool = False
    cancelled: float | None = None
    deleted: bool = False
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def over(self) -> float:
        return self.ends if self.cancelled is None else min(self.ends, self.cancelled)

    @property
    def was_cancelled(self) -> bool:
        return self.cancelled is not None and self.cancelled < self.ends

    def has_started(self, now: float) -> bool:
        return self.starts <= min(now, self.over)


@dataclass
class Fault:
    code: grpc.StatusCode
    message: str
    times: int
    applied: bool


@dataclass
class Hanging:
    times: int
    arrived: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class CloudRun:
    """Serves until `stop`. Faults are set on it; what happened is read from it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.jobs: dict[str, run_v2.Job] = {}
        self.runs: list[Run] = []
        self.port = 0
        self.start_seconds, self.ready_seconds, self.log_seconds = 0.05, 0.0, 0.0
        self.never_starts, self.unready = False, ""
        self.job_quota, self.running_quota = 1000, 1000
        self.per_minute = dict(PER_MINUTE)
        self.longest_timeout = 86_400
        self.unavailable = self.lost = 0.0
        self.random = random.Random(seed := random.randrange(1 << 30))
        print(f"Cloud Run's faults come from seed {seed}.")  # noqa: T201 - shown when a test fails
        self.latency: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.metadata: deque[dict[str, str]] = deque(maxlen=10)
        self._faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self._hanging: dict[str, Hanging] = {}
        self._recent: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._server: grpc.Server | None = None
        self.credentials: grpc.ServerCredentials | None = None

    # -------------------------------------------------------------- from outside

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def config(self, region: str = REGIONS[0], **more: object) -> dict[str, object]:
        """A host's config that leads here."""
        kept = {"project": PROJECT, "region": region, "endpoint": self.endpoint, "plaintext": True}
        return {**kept, "poll_seconds": 0.3, **more}

    def start(self) -> "CloudRun":
        self._server = grpc.server(ThreadPoolExecutor(100), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(tuple(self._handlers()))
        address = f"127.0.0.1:{self.port}"
        self.port = (
            self._server.add_secure_port(address.replace("127.0.0.1", "localhost"), self.credentials)
            if self.credentials
            else self._server.add_insecure_port(address)
        )
        self._server.start()
        return self

    def stop(self) -> None:
        for hanging in self._hanging.values():
            hanging.over.set()
        self._server.stop(0).wait(10)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Nothing listens on the port meanwhile; what was started runs on."""
        self._server.stop(0).wait(10)
        try:
            yield
        finally:
            self.start()

    def fail(self, method: str, code: grpc.StatusCode, message: str = "as configured", times: int = 1) -> None:
        """The next calls are answered with an error and do nothing."""
        self._faults[method].append(Fault(code, message, times, applied=False))

    def lose_reply(self, method: str, times: int = 1) -> None:
        """The next calls have their effect, and are answered with UNAVAILABLE."""
        self._faults[method].append(Fault(Code.UNAVAILABLE, "the reply was lost", times, applied=True))

    def repair(self) -> None:
        self._faults.clear()

    @contextmanager
    def hang(self, method: str, times: int = 1 << 30) -> Iterator[threading.Event]:
        """The next calls of the method are answered only afterwards; the event is set when there is one."""
        hanging = self._hanging[method] = Hanging(times)
        try:
            yield hanging.arrived
        finally:
            del self._hanging[method]
            hanging.over.set()

    def runs_of(self, labels: dict[str, str]) -> list[Run]:
        with self.lock:
            return [run for run in self.runs if labels.items() <= run.labels.items()]

    def running(self) -> int:
        now = time.time()
        with self.lock:
            return sum(run.starts <= now < run.over for run in self.runs)

    # -------------------------------------------------------------- serving

    def _handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        services = {
            "google.cloud.run.v2.Jobs": {
                "CreateJob": (self._create, run_v2.CreateJobRequest), "GetJob": (self._get, run_v2.GetJobRequest),
                "ListJobs": (self._list, run_v2.ListJobsRequest), "DeleteJob": (self._delete, run_v2.DeleteJobRequest),
                "RunJob": (self._run, run_v2.RunJobRequest),
            },
            "google.cloud.run.v2.Executions": {
                "GetExecution": (self._get_execution, run_v2.GetExecutionRequest),
                "ListExecutions": (self._list_executions, run_v2.ListExecutionsRequest),
                "CancelExecution": (self._cancel, run_v2.CancelExecutionRequest),
            },
            "google.cloud.run.v2.Tasks": {"ListTasks": (self._list_tasks, run_v2.ListTasksRequest)},
            "google.logging.v2.LoggingServiceV2": {"ListLogEntries": (self._list_entries, ListLogEntriesRequest)},
        }  # fmt: skip
        for service, methods in services.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    self._guarded(name, answer), request_deserializer=kind.deserialize, response_serializer=_serialize
                )
                for name, (answer, kind) in methods.items()
            }
            yield grpc.method_handlers_generic_handler(service, handlers)

    def _guarded(self, method: str, answer: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            self.metadata.append(dict(context.invocation_metadata()))
            if (hanging := self._hanging.get(method)) is not None and hanging.times:
                hanging.times -= 1
                hanging.arrived.set()
                hanging.over.wait(60)
            time.sleep(self.latency.get(method, 0))
            try:
                with self.lock:
                    self.calls[method] += 1
                    self._within_quota(method, request)
                    fault = self._next_fault(method)
                    if fault is not None and not fault.applied:
                        raise Refused(fault.code, fault.message)
                    response = answer(request)
                    if fault is not None:
                        raise Refused(fault.code, fault.message)
                    return response
            except Refused as refused:
                self.refused[f"{method} {refused.code.name}"] += 1
                context.abort(refused.code, refused.message)

        return handle

    def _next_fault(self, method: str) -> Fault | None:
        if self._faults[method]:
            fault = self._faults[method][0]
            fault.times -= 1
            if not fault.times:
                self._faults[method].pop(0)
            return fault
        drawn = self.random.random()
        if drawn < self.unavailable + self.lost:
            return Fault(Code.UNAVAILABLE, "at random", 1, applied=drawn >= self.unavailable)
        return None

    def _within_quota(self, method: str, request: Any) -> None:
        kind, now = KINDS.get(method, "read"), time.monotonic()
        name = getattr(request, "parent", "") or getattr(request, "name", "")
        recent = self._recent[kind, name.partition("/jobs")[0]]
        while recent and recent[0] < now - 60:
            recent.popleft()
        if len(recent) >= self.per_minute[kind]:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"Quota exceeded for quota metric '{kind} requests per minute'")
        recent.append(now)

    def _region(self, name: str) -> None:
        match = re.fullmatch(r"projects/([^/]+)/locations/([^/]+)(/.*)?", name)
        if match is None:
            raise Refused(Code.INVALID_ARGUMENT, f"{name!r} is not a name")
        if match[1] != PROJECT or match[2] not in REGIONS:
            raise Refused(Code.PERMISSION_DENIED, f"Permission denied on 'locations/{match[2]}' (or it may not exist).")

    # -------------------------------------------------------------- jobs

    def _create(self, request: run_v2.CreateJobRequest) -> operations_pb2.Operation:
        self._region(request.parent)
        if not JOB_ID.fullmatch(request.job_id):
            raise Refused(Code.INVALID_ARGUMENT, f"job_id {request.job_id!r}: must be a DNS label of at most 49")
        name = f"{request.parent}/jobs/{request.job_id}"
        if name in self.jobs:
            raise Refused(Code.ALREADY_EXISTS, f"Resource '{request.job_id}' already exists.")
        if sum(known.startswith(request.parent + "/") for known in self.jobs) >= self.job_quota:
            raise Refused(Code.RESOURCE_EXHAUSTED, "Quota exceeded for total jobs per region.")
        self._check(request.job)
        job = run_v2.Job(request.job)
        job.name, job.create_time = name, datetime.now(UTC)
        self.jobs[name] = job
        return self._operation(name, self._shown(job))

    def _check(self, job: run_v2.Job) -> None:  # noqa: C901
        for labels in (job.labels, job.template.labels):
            for key, value in labels.items():
                if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                    raise Refused(Code.INVALID_ARGUMENT, f"label {key!r}: {value!r} is not allowed")
        task = job.template.template
        (container,) = task.containers
        if not IMAGE.fullmatch(container.image):
            raise Refused(Code.INVALID_ARGUMENT, f"image: {container.image!r}: expected docker.io, gcr.io or pkg.dev")
        if container.image.rsplit("/", 1)[-1].startswith("missing"):
            raise Refused(Code.INVALID_ARGUMENT, f"Image '{container.image}' not found.")
        cpus, memory = container.resources.limits["cpu"], container.resources.limits["memory"]
        if not re.fullmatch(r"[12468]", cpus) or not re.fullmatch(r"\d+Mi", memory):
            raise Refused(Code.INVALID_ARGUMENT, f"resources: {cpus} CPU and {memory} are not allowed")
        least, most = MEMORY[int(cpus)]
        if not least <= int(memory[:-2]) <= most:
            raise Refused(Code.INVALID_ARGUMENT, f"memory: {memory} with {cpus} CPU is not from {least}Mi to {most}Mi")
        if not 0 < task.timeout.total_seconds() <= self.longest_timeout:
            raise Refused(Code.INVALID_ARGUMENT, f"timeout: {task.timeout} is too long")
        names = [variable.name for variable in container.env]
        if len(names) > 1000 or any(len(variable.value.encode()) > 32_768 for variable in container.env):
            raise Refused(Code.INVALID_ARGUMENT, "env: too many or too long")
        if any(name in {"PORT", "K_SERVICE"} or name.startswith("CLOUD_RUN_") for name in names):
            raise Refused(Code.INVALID_ARGUMENT, "env: a reserved name was used")
        if "max_retries" not in task:
            raise Refused(Code.INVALID_ARGUMENT, "these tests want max_retries set: its default would run a job again")

    def _job(self, name: str) -> run_v2.Job:
        self._region(name)
        if name not in self.jobs:
            raise Refused(Code.NOT_FOUND, f"Resource '{name.rsplit('/', 1)[-1]}' was not found.")
        return self.jobs[name]

    def _shown(self, job: run_v2.Job) -> run_v2.Job:
        shown = run_v2.Job(job)
        shown.reconciling = self._age(job) < self.ready_seconds
        shown.terminal_condition.type_ = "Ready"
        shown.terminal_condition.state = State.CONDITION_RECONCILING if shown.reconciling else State.CONDITION_SUCCEEDED
        if self.unready:
            shown.terminal_condition.state, shown.terminal_condition.message = State.CONDITION_FAILED, self.unready
        mine = [run for run in self.runs if run.job is job]
        shown.execution_count = len(mine)
        if mine:
            # The short form that is reported of the real service.
            shown.latest_created_execution.name = mine[-1].name.rsplit("/", 1)[-1]
            if mine[-1].over <= time.time():
                shown.latest_created_execution.completion_time = _moment(mine[-1].over)
        return shown

    def _age(self, job: run_v2.Job) -> float:
        return (datetime.now(UTC) - job.create_time).total_seconds()

    def _get(self, request: run_v2.GetJobRequest) -> run_v2.Job:
        return self._shown(self._job(request.name))

    def _list(self, request: run_v2.ListJobsRequest) -> run_v2.ListJobsResponse:
        self._region(request.parent)
        found = [job for name, job in self.jobs.items() if name.startswith(request.parent + "/")]
        page, token = _page(found, request)
        return run_v2.ListJobsResponse(jobs=[self._shown(job) for job in page], next_page_token=token)

    def _delete(self, request: run_v2.DeleteJobRequest) -> operations_pb2.Operation:
        job = self._job(request.name)
        shown = self._shown(job)
        for run in self.runs:
            if run.job is job:
                run.deleted, run.cancelled = True, min(run.cancelled or time.time(), time.time())
        del self.jobs[request.name]
        return self._operation(request.name, shown)

    def _run(self, request: run_v2.RunJobRequest) -> operations_pb2.Operation:
        job = self._job(request.name)
        if self._age(job) < self.ready_seconds:
            raise Refused(Code.FAILED_PRECONDITION, "The job is not ready.")
        if self.running() >= self.running_quota:
            raise Refused(Code.RESOURCE_EXHAUSTED, "Quota exceeded for running executions.")
        run = self._new_run(job)
        self.runs.append(run)
        return self._operation(run.name, self._execution(run))

    def _new_run(self, job: run_v2.Job) -> Run:
        now = time.time()
        task = job.template.template
        container = task.containers[0]
        starts = now + (1e9 if self.never_starts else self.start_seconds)
        code, lasts, lines, oom = 0, 0.0, [], False
        script = " ".join([*container.command, *container.args]).removeprefix("sh -c ")
        variables = {variable.name: variable.value for variable in container.env}
        for step in (part.strip() for part in script.split(";")):
            verb, _, rest = step.partition(" ")
            if verb == "sleep":
                lasts += float(rest)
            elif verb in {"echo", "warn"}:
                text = re.sub(r"\$(\w+)", lambda match: variables.get(match[1], ""), rest)
                lines.append((starts + lasts + len(lines) / 1e6, "stderr" if verb == "warn" else "stdout", text))
            elif verb in {"exit", "oom"}:
                code, oom = (int(rest), False) if verb == "exit" else (137, True)
                break
        limit = task.timeout.total_seconds()
        execution = f"{job.name}/executions/{job.name.rsplit('/', 1)[-1]}-{random.randbytes(3).hex()}"
        return Run(
            job, execution, now, starts, starts + min(lasts, limit), code, lines, oom, lasts > limit,
            labels=dict(job.template.labels),
        )  # fmt: skip

    # -------------------------------------------------------------- executions

    def _execution(self, run: Run) -> run_v2.Execution:
        now = time.time()
        # The short form of the job that is reported of the real service.
        shown = run_v2.Execution(
            name=run.name, job=run.job.name.rsplit("/", 1)[-1], labels=run.labels, create_time=_moment(run.created),
            task_count=1, template=run.job.template.template,
        )  # fmt: skip
        shown.conditions.append(run_v2.Condition(type_="ResourcesAvailable", state=State.CONDITION_SUCCEEDED))
        if run.has_started(now):
            shown.start_time = _moment(run.starts)
        completed = run_v2.Condition(type_="Completed", state=State.CONDITION_RECONCILING)
        if now >= run.over:
            shown.completion_time = _moment(run.over)
            self._conclude(run, shown, completed)
        else:
            shown.running_count = int(run.has_started(now))
        shown.conditions.append(completed)
        # Looks like a verdict, but is not one.
        shown.conditions.append(run_v2.Condition(type_="Retry", state=State.CONDITION_SUCCEEDED))
        return shown

    def _conclude(self, run: Run, shown: run_v2.Execution, completed: run_v2.Condition) -> None:
        completed.state = State.CONDITION_FAILED
        if run.was_cancelled:
            shown.cancelled_count = 1
            completed.execution_reason, completed.message = Reason.CANCELLED, "Execution was cancelled."
        elif run.timed_out:
            shown.failed_count = 1
            completed.message = "The configured timeout was reached."
        elif run.exit_code:
            shown.failed_count = 1
            completed.execution_reason = Reason.NON_ZERO_EXIT_CODE
            completed.message = "Memory limit of 512 MiB exceeded" if run.out_of_memory else "Task failed"
        else:
            shown.succeeded_count = 1
            completed.state = State.CONDITION_SUCCEEDED

    def _find(self, name: str) -> Run:
        self._region(name)
        for run in self.runs:
            if run.name == name and not run.deleted:
                return run
        raise Refused(Code.NOT_FOUND, f"Resource '{name.rsplit('/', 1)[-1]}' was not found.")

    def _get_execution(self, request: run_v2.GetExecutionRequest) -> run_v2.Execution:
        return self._execution(self._find(request.name))

    def _list_executions(self, request: run_v2.ListExecutionsRequest) -> run_v2.ListExecutionsResponse:
        self._region(request.parent)
        prefix = request.parent.removesuffix("-") if request.parent.endswith("/jobs/-") else request.parent + "/"
        if not request.parent.endswith("/jobs/-"):
            self._job(request.parent)
        found = [
            run for run in reversed(self.runs)
            if run.name.startswith(prefix) and (request.show_deleted or not run.deleted)
        ]  # fmt: skip
        page, token = _page(found, request)
        return run_v2.ListExecutionsResponse(executions=[self._execution(run) for run in page], next_page_token=token)

    def _cancel(self, request: run_v2.CancelExecutionRequest) -> operations_pb2.Operation:
        run = self._find(request.name)
        if run.over <= time.time():
            raise Refused(Code.FAILED_PRECONDITION, "The execution cannot be cancelled because it is not running.")
        run.cancelled = time.time() + 0.05
        return self._operation(run.name, self._execution(run))

    def _list_tasks(self, request: run_v2.ListTasksRequest) -> run_v2.ListTasksResponse:
        run = self._find(request.parent)
        task = run_v2.Task(name=f"{run.name}/tasks/{run.name.rsplit('/', 1)[-1]}-task0")
        if time.time() >= run.over and run.has_started(run.over):
            result = task.last_attempt_result
            if run.was_cancelled:
                result.status.code = 1
            elif run.timed_out:
                result.status.code = 4
            elif run.exit_code:
                result.status.code, result.exit_code = 10, run.exit_code
        return run_v2.ListTasksResponse(tasks=[task])

    def _operation(self, name: str, metadata: Any) -> operations_pb2.Operation:
        operation = operations_pb2.Operation(
            name=f"{name.partition('/jobs')[0]}/operations/{random.randbytes(8).hex()}"
        )
        operation.metadata.Pack(type(metadata).pb(metadata))
        return operation

    # -------------------------------------------------------------- logs

    def _list_entries(self, request: ListLogEntriesRequest) -> ListLogEntriesResponse:
        if list(request.resource_names) != [f"projects/{PROJECT}"]:
            raise Refused(Code.PERMISSION_DENIED, "Permission 'logging.logEntries.list' denied on resource")
        wanted = re.search(r"resource\.labels\.job_name=\(([^)]*)\)", request.filter)[1]
        names, now = set(re.findall(r'"([^"]+)"', wanted)), time.time()
        since = re.search(r'timestamp>="([^"]+)"', request.filter)
        after = datetime.fromisoformat(since[1][:26].rstrip("Z") + "+00:00").timestamp() - 1e-6 if since else 0
        entries = []
        for run in self.runs:
            job = run.job.name.rsplit("/", 1)[-1]
            if job in names:
                for at, stream, text in run.lines:
                    if after <= at <= min(now, run.over + 0.01) and at + self.log_seconds <= now:
                        entries.append((at, job, stream, text))
        page, token = _page(sorted(entries), request)
        return ListLogEntriesResponse(
            entries=[
                LogEntry(
                    log_name=f"projects/{PROJECT}/logs/run.googleapis.com%2F{stream}", timestamp=_moment(at),
                    resource={"type": "cloud_run_job", "labels": {"job_name": job}}, text_payload=text,
                )
                for at, job, stream, text in page
            ],
            next_page_token=token,
        )  # fmt: skip


def hurry(patch: Any) -> None:
    """Read logs as often as no real quota allows, so that tests need not wait."""
    for name, seconds in {"INTERVAL": 0.05, "LATE": 0.1, "SILENT": 0.3, "FOLLOW_EVERY": 0.2}.items():
        patch.setattr(f"container_manager.executors.cloudrun.logs.{name}", seconds)


def _page(found: list[Any], request: Any) -> tuple[list[Any], str]:
    begin, size = int(request.page_token or 0), min(request.page_size or 100, 100)
    more = begin + size < len(found)
    return found[begin : begin + size], str(begin + size) if more else ""


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _serialize(message: Any) -> bytes:
    return message.SerializeToString() if hasattr(message, "SerializeToString") else type(message).serialize(message)
