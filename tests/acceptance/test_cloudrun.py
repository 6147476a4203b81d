"""Cloud Run through the API: verdicts, limits, quotas, permissions, logs, and a mixed fleet."""

import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.utils import timezone

from container_manager.models import ContainerJob, ExecutorHost, RoutingEvent
from tests.certificates import Authority
from tests.client import CREATE_HOST, SUBMIT, Api
from tests.cloudrun import PROJECT, REGIONS, CloudRun, hurry
from tests.configured import configure
from tests.engines import Engine
from tests.eventually import eventually, eventually_sync
from tests.jobs import CANCEL, ended, running
from tests.processes import Served, command

ATTEMPTS = "query($id: ID!) { job(id: $id) { message attempts { attempt status error hostName executionId } } }"
WAITS = "query($id: ID!) { job(id: $id) { waitingOn { verdict rejections { code hosts } suggestions { message } } } }"
HOST = "query($name: String) { host(name: $name) { id region cooldownUntil health { status error } config } }"
SUBMIT_MANY = "mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) { ... on ContainerJob { id } } }"
Code = grpc.StatusCode
names = itertools.count()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr("container_manager.executors.cloudrun.executor.SETTLE", 0.5)
    configure(monkeypatch, probe_interval_seconds=3, orphan_grace_seconds=3)


async def add_region(api: Api, server: CloudRun, at: str = REGIONS[0], **input: object) -> dict:
    config = server.config(at, **input.pop("config", {}))
    values = {"name": f"run-{next(names)}", "executorType": "CLOUDRUN", "config": config, "maxConcurrentJobs": 100}
    host = await api(CREATE_HOST, input={**values, **input})
    assert host.get("health", {}).get("status") == "HEALTHY", host
    return host


@pytest.fixture
async def region(admin: Api, cloudrun: CloudRun) -> dict:
    return await add_region(admin, cloudrun)


# ------------------------------------------------------------------ one job's way


async def test_a_job_runs_in_the_region_and_leaves_nothing_behind(admin: Api, cloudrun: CloudRun, region: dict) -> None:
    assert region["region"] == REGIONS[0], "taken from the config, unless it is given"
    cloudrun.start_seconds, cloudrun.ready_seconds, cloudrun.log_seconds = 0.6, 0.3, 0.3
    submitted = await admin.submit(
        command=["sh", "-c", "echo in $GREETING; sleep 0.1; warn careful; sleep 0.1"],
        environment=[{"name": "GREETING", "value": "x"}],
    )
    waiting = await eventually(lambda: has_message(admin, submitted["id"]))
    assert waiting == f"Host {region['name']} has taken the job and is starting its container."
    assert (await admin.job(submitted["id"]))["status"] == "LAUNCHING", "it is paid for, and does not run yet"
    job = await ended(admin, submitted["id"])
    assert (job["status"], job["exitCode"], job["attempt"]) == ("SUCCEEDED", 0, 1)
    lines = [(edge["node"]["stream"], edge["node"]["text"]) for edge in job["logs"]["edges"]]
    assert lines == [("STDOUT", "in x"), ("STDERR", "careful")], "also what comes after the end"
    (run,) = cloudrun.runs
    assert job["executionId"] == run.job.name.rsplit("/", 1)[-1]
    assert abs(run.starts - (await ContainerJob.objects.aget()).started_at.timestamp()) < 0.01
    await eventually(lambda: not cloudrun.jobs, what="nothing is left")


async def has_message(api: Api, job_id: str) -> str:
    return (await api(ATTEMPTS, id=job_id))["message"]


async def test_kinds_of_ends_are_distinguished(admin: Api, cloudrun: CloudRun, region: dict) -> None:
    async def end(script: str, **input: object) -> tuple[str, int | None, str]:
        job = await ended(admin, (await admin.submit(command=["sh", "-c", script], **input))["id"])
        assert job["attempt"] == 1
        return job["status"], job["exitCode"], job["error"]

    async def cancelled_by(how: str) -> tuple[str, int | None, str]:
        job = await running(admin, (await admin.submit(command=["sh", "-c", "sleep 60"]))["id"])
        if how == "us":
            await admin(CANCEL, id=job["id"])
        else:
            (run,) = [run for run in cloudrun.runs if run.job.name.endswith(job["executionId"])]
            run.cancelled = run.starts + 0.1
        job = await ended(admin, job["id"])
        return job["status"], job["exitCode"], job["error"]

    found = await asyncio.gather(
        end("exit 7"), end("oom"), end("sleep 30", timeoutSeconds=1), cancelled_by("us"), cancelled_by("another client")
    )
    assert found == [
        ("FAILED", 7, ""),
        ("FAILED", 137, "It used more memory than its limit."),
        ("TIMED_OUT", None, "The job ran longer than its timeout of 1 s and was stopped."),
        ("CANCELLED", None, ""),
        ("FAILED", None, "It was cancelled in Cloud Run, and not by this service."),
    ]
    await eventually(lambda: not cloudrun.jobs)


async def test_a_timeout_that_the_region_has_counted_is_one(
    admin: Api, cloudrun: CloudRun, region: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.control.job_run.watch.time_left", lambda _: 60)
    job = await ended(admin, (await admin.submit(command=["sh", "-c", "sleep 30"], timeoutSeconds=1))["id"])
    assert (job["status"], job["exitCode"]) == ("TIMED_OUT", None)
    assert cloudrun.calls["CancelExecution"] == 0


async def test_what_is_not_started_in_time_runs_in_another_attempt(
    admin: Api, cloudrun: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_region(admin, cloudrun, name="stuck")
    configure(monkeypatch, pull_timeout_seconds=1)
    cloudrun.never_starts = True
    job = await admin.submit(command=["true"])
    first = await eventually(lambda: attempts_of(admin, job["id"], 2))
    assert first[0]["error"] == "Host stuck did not start the container within 1 s."
    assert (await ExecutorHost.objects.aget()).launch_failures == 1, "counts towards its ejection"
    cloudrun.never_starts = False
    assert (await ended(admin, job["id"]))["status"] == "SUCCEEDED"


async def test_what_starts_at_the_last_moment_is_left_to_run(
    admin: Api, cloudrun: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_region(admin, cloudrun, config={"poll_seconds": 300})
    configure(monkeypatch, pull_timeout_seconds=2)
    cloudrun.start_seconds = 1.5
    monkeypatch.setattr("container_manager.executors.watcher.LONGEST_PAUSE", 300)
    job = await running(admin, (await admin.submit(command=["sh", "-c", "sleep 60"]))["id"])
    assert (job["attempt"], cloudrun.calls["CancelExecution"]) == (1, 0), "it was looked at before it was given up"
    await admin(CANCEL, id=job["id"])
    assert (await ended(admin, job["id"]))["status"] == "CANCELLED"


async def test_waiting_in_line_is_not_counted_as_starting(
    admin: Api, cloudrun: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_region(admin, cloudrun, config={"max_launches": 1})
    configure(monkeypatch, pull_timeout_seconds=1)
    cloudrun.latency = {"CreateJob": 0.5}
    jobs = [await admin.submit(command=["true"]) for _ in range(5)]
    found = [await ended(admin, job["id"]) for job in jobs]
    assert {(job["status"], job["attempt"]) for job in found} == {("SUCCEEDED", 1)}


async def test_the_region_follows_the_config_unless_it_was_given(admin: Api, cloudrun: CloudRun) -> None:
    update = (
        "mutation($id: ID!, $c: JSON!) { updateHost(id: $id, input: {config: $c}) { ... on ExecutorHost { region } } }"
    )
    derived = await add_region(admin, cloudrun)
    given = await add_region(admin, cloudrun, region="eu")
    moved = cloudrun.config(REGIONS[1])
    assert (await admin(update, id=derived["id"], c=moved))["region"] == REGIONS[1]
    assert (await admin(update, id=given["id"], c=moved))["region"] == "eu"


async def attempts_of(api: Api, job_id: str, count: int) -> list[dict] | None:
    found = (await api(ATTEMPTS, id=job_id))["attempts"]
    return found if len(found) >= count else None


async def test_a_job_that_is_cancelled_before_it_runs_never_does(admin: Api, cloudrun: CloudRun, region: dict) -> None:
    cloudrun.never_starts = True
    job = await admin.submit(command=["true"])
    await eventually(lambda: cloudrun.runs)
    await admin(CANCEL, id=job["id"])
    job = await ended(admin, job["id"])
    assert (job["status"], job["startedAt"]) == ("CANCELLED", None)
    await eventually(lambda: not cloudrun.jobs)


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("input", "what"),
    [
        ({"image": "ghcr.io/team/app:1"}, "an image of ghcr.io, which is not docker.io, gcr.io or pkg.dev"),
        ({"memoryLimitMb": 32769}, "more than 8 cores or 32768 MiB of memory"),
        ({"cpuLimit": 8.5}, "more than 8 cores or 32768 MiB of memory"),
        ({"timeoutSeconds": 86401}, "a timeout of more than 24 hours"),
        ({"timeoutSeconds": 604801}, "a timeout of more than 7 days"),
        ({"environment": [{"name": "PORT", "value": "1"}]}, "the reserved environment variable PORT"),
        ({"environment": [{"name": "A", "value": "x" * 32769}]}, "an environment variable of more than 32768 bytes"),
        ({"environment": [{"name": f"V{n}", "value": ""} for n in range(999)]}, "more than 998 environment variables"),
        ({"readOnlyRoot": True}, "a read-only root"),
        ({"user": "nobody"}, "user"),
        ({"network": "backend"}, "network backend"),
    ],
)
async def test_what_cloud_run_does_not_take_is_refused_before_it_is_sent(
    admin: Api, cloudrun: CloudRun, region: dict, input: dict, what: str
) -> None:
    job = await admin.submit(**input)
    assert job["status"] == "PENDING"
    waits = (await admin(WAITS, id=job["id"]))["waitingOn"]
    assert (waits["verdict"], waits["rejections"]) == ("NEVER", [{"code": "EXECUTOR_LIMITS", "hosts": 1}])
    assert {"message": f"Do not ask for {what}."} in waits["suggestions"]
    assert not cloudrun.calls["CreateJob"]


@pytest.mark.parametrize(
    ("memory", "cpu", "size"),
    [
        (32, 0.1, ("1", "512Mi")), (4096, 1, ("1", "4096Mi")), (4097, 0.5, ("2", "4097Mi")), (600, 1.1, ("2", "600Mi")),
        (512, 2.5, ("4", "2048Mi")), (20000, 1, ("6", "20000Mi")), (100, 7, ("8", "4096Mi")), (32768, 8, ("8", "32768Mi")),
    ],
)  # fmt: skip
async def test_a_size_is_the_smallest_that_has_as_much(
    admin: Api, cloudrun: CloudRun, region: dict, memory: int, cpu: float, size: tuple[str, str]
) -> None:
    tmpfs = [{"path": "/scratch", "sizeMb": 64}]
    job = await admin.submit(memoryLimitMb=memory, cpuLimit=cpu, tmpfs=tmpfs, workingDir="/bin", timeoutSeconds=86400)
    assert (await ended(admin, job["id"]))["status"] == "SUCCEEDED"
    task = cloudrun.runs[0].job.template.template
    limits = task.containers[0].resources.limits
    assert (limits["cpu"], limits["memory"]) == size
    assert (task.max_retries, task.timeout.total_seconds(), task.containers[0].working_dir) == (0, 86400, "/bin")
    assert task.volumes[0].empty_dir.size_limit == "64Mi"
    assert task.containers[0].volume_mounts[0].mount_path == "/scratch"


async def test_a_region_that_takes_longer_jobs_says_so(admin: Api, cloudrun: CloudRun) -> None:
    cloudrun.longest_timeout = 604_800
    vpc = {"network": "net", "subnetwork": "sub", "tags": ["batch"], "egress": "all-traffic"}
    account = "runner@demo-project.iam.gserviceaccount.com"
    limits = {"timeout_seconds": 604_800}
    await add_region(admin, cloudrun, config={"limits": limits, "vpc": vpc, "service_account": account})
    job = await ended(admin, (await admin.submit(timeoutSeconds=200_000))["id"])
    assert job["status"] == "SUCCEEDED"
    task = cloudrun.runs[0].job.template.template
    assert (task.timeout.total_seconds(), task.service_account) == (200_000, account)
    (interface,) = task.vpc_access.network_interfaces
    assert (interface.network, interface.subnetwork, list(interface.tags)) == ("net", "sub", ["batch"])
    assert task.vpc_access.egress.name == "ALL_TRAFFIC"


async def test_a_mistake_of_the_job_fails_it_and_one_of_the_hosts_does_not(admin: Api, cloudrun: CloudRun) -> None:
    await add_region(admin, cloudrun, name="bad", routingWeight=1000)
    job = await ended(admin, (await admin.submit(image="gcr.io/team/missing:1"))["id"])
    assert (job["status"], job["attempt"]) == ("FAILED", 1)
    assert "Image 'gcr.io/team/missing:1' not found." in job["error"]
    cloudrun.fail("CreateJob", Code.INVALID_ARGUMENT, "Image 'gcr.io/team/network-tool:1' not found.")
    job = await ended(admin, (await admin.submit(image="gcr.io/team/network-tool:1"))["id"])
    assert (job["status"], job["attempt"]) == ("FAILED", 1), "whatever the image is called"
    cloudrun.unready = "Image 'busybox:test' cannot be pulled."
    job = await ended(admin, (await admin.submit(command=["true"]))["id"])
    assert (job["status"], job["attempt"]) == ("FAILED", 1)
    assert job["error"] == "host bad: Cloud Run refuses the job: Image 'busybox:test' cannot be pulled."
    cloudrun.unready = ""
    await eventually(lambda: not cloudrun.jobs, what="nothing is left")
    cloudrun.fail("CreateJob", Code.INVALID_ARGUMENT, "Service account runner@x does not exist.")
    job = await ended(admin, (await admin.submit(command=["true"]))["id"])
    assert (job["status"], job["attempt"]) == ("SUCCEEDED", 2)
    first, _ = (await admin(ATTEMPTS, id=job["id"]))["attempts"]
    assert first["error"] == "host bad: Cloud Run refuses the job: Service account runner@x does not exist."


# ------------------------------------------------------------------ quotas and permissions


@pytest.mark.parametrize("method", ["CreateJob", "RunJob"])
async def test_a_quota_that_is_used_up_cools_the_host_down_for_all_jobs(
    admin: Api, cloudrun: CloudRun, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await add_region(admin, cloudrun, name="tired")
    cloudrun.fail(method, Code.RESOURCE_EXHAUSTED, "Quota exceeded for run requests per minute.")
    first = await admin.submit(command=["true"])
    await eventually(lambda: RoutingEvent.objects.filter(kind="host_cooldown").aexists())
    second = await admin.submit(command=["true"])
    assert second["waitingOn"]["rejections"] == [{"code": "COOLDOWN", "hosts": 1}]
    assert second["waitingOn"]["verdict"] == "NOT_NOW"
    shown = await admin(HOST, name="tired")
    assert shown["health"] == {"status": "HEALTHY", "error": None}, "nothing is wrong with it"
    assert shown["cooldownUntil"] > timezone.now().isoformat()
    event = await RoutingEvent.objects.aget(kind="host_cooldown")
    assert event.message == (
        "Avoided for 30 s. host tired: a quota of Cloud Run is used up: Quota exceeded for run requests per minute."
    )
    await admin("mutation($id: ID!) { resumeHost(id: $id) { __typename } }", id=host["id"])
    for job in (first, second):
        assert (await ended(admin, job["id"]))["status"] == "SUCCEEDED"
    (attempt, _) = (await admin(ATTEMPTS, id=first["id"]))["attempts"]
    assert "a quota of Cloud Run is used up" in attempt["error"]
    assert len(cloudrun.runs) == 2, "each ran once"


async def test_what_is_in_line_when_a_quota_is_used_up_asks_no_more(
    admin: Api, cloudrun: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_region(admin, cloudrun, config={"max_launches": 2})
    monkeypatch.setattr("container_manager.domain.host_health.COOLDOWN", timezone.timedelta(seconds=2))
    cloudrun.running_quota = 3
    await admin(SUBMIT_MANY, inputs=[{"image": "busybox:test", "command": ["sh", "-c", "sleep 0.5"]}] * 12)
    await eventually(all_ended, 60)
    assert {job.status async for job in ContainerJob.objects.all()} == {"succeeded"}
    refusals = cloudrun.refused["RunJob RESOURCE_EXHAUSTED"]
    told = await RoutingEvent.objects.filter(kind="host_cooldown").acount()
    assert told <= refusals <= told * 4, "only the launches in progress, not those that waited"


async def test_a_cooldown_ends_by_itself_and_grows(
    admin: Api, cloudrun: CloudRun, region: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.domain.host_health.COOLDOWN", timezone.timedelta(seconds=0.3))
    cloudrun.fail("RunJob", Code.RESOURCE_EXHAUSTED, times=3)
    job = await ended(admin, (await admin.submit(command=["true"]))["id"])
    assert (job["status"], job["attempt"]) == ("SUCCEEDED", 4)
    events = [event.message async for event in RoutingEvent.objects.filter(kind="host_cooldown").order_by("pk")]
    assert [message.split(" s.")[0] for message in events] == ["Avoided for 0.3", "Avoided for 0.6", "Avoided for 0.9"]
    host = await ExecutorHost.objects.aget()
    assert (host.cooldowns, host.cooldown_until, host.launch_failures) == (0, None, 0)


async def test_a_probe_that_finds_a_quota_used_up_cools_the_host_down(
    admin: Api, cloudrun: CloudRun, region: dict
) -> None:
    cloudrun.fail("ListJobs", Code.RESOURCE_EXHAUSTED, "Quota exceeded for reads.", times=1)
    (host,) = await admin("mutation { checkHealth { health { status } cooldownUntil } }")
    assert host["health"] == {"status": "HEALTHY"}
    assert host["cooldownUntil"] is not None


async def test_a_permission_that_a_launch_lacks_is_named_by_the_job_and_the_hosts_health(
    admin: Api, cloudrun: CloudRun
) -> None:
    await add_region(admin, cloudrun, name="denied")
    cloudrun.fail("RunJob", Code.PERMISSION_DENIED, "Permission 'run.jobs.run' denied on resource.", times=100)
    job = await ended(admin, (await admin.submit(command=["true"]))["id"])
    assert (job["status"], job["attempt"]) == ("FAILED", 3), "as often as INFRASTRUCTURE_RETRIES says"
    expected = (
        "host denied: the credentials lack the permission run.jobs.run (project demo-project, europe-west1): "
        "Permission 'run.jobs.run' denied on resource."
    )
    assert job["error"] == expected
    await admin("mutation { checkHealth { id } }")
    assert (await admin(HOST, name="denied"))["health"]["error"] == expected, "to list is not to run"
    cloudrun.repair()
    assert (await ended(admin, (await admin.submit(command=["true"]))["id"]))["status"] == "SUCCEEDED"
    assert (await admin(HOST, name="denied"))["health"]["error"] is None


@pytest.mark.parametrize(
    ("code", "message", "sentence"),
    [
        (
            Code.PERMISSION_DENIED, "The caller does not have permission",
            "the credentials lack the permission run.jobs.list (project demo-project, europe-west1): "
            "The caller does not have permission.",
        ),
        (
            Code.PERMISSION_DENIED, "Permission 'iam.serviceaccounts.actAs' denied on service account x (or it may not exist).",
            "the credentials lack the permission iam.serviceaccounts.actAs (project demo-project",
        ),
        (
            Code.PERMISSION_DENIED, "Cloud Run Admin API has not been used in project 1 before or it is disabled.",
            "the Cloud Run Admin API is not enabled in project demo-project: ",
        ),
        (Code.INVALID_ARGUMENT, "Invalid project id.", "Cloud Run refuses listing jobs: Invalid project id."),
        (
            Code.PERMISSION_DENIED, "Permission denied on 'locations/europe-west1' (or it may not exist).",
            "config.region: 'europe-west1' may not exist, or project demo-project may not use it "
            "(Permission denied on 'locations/europe-west1' (or it may not exist).).",
        ),
        (Code.UNAUTHENTICATED, "expired", "config.credentials: Cloud Run does not accept them (expired.)."),
        (Code.UNIMPLEMENTED, "no", "does not serve this (no.); is config.endpoint the region's own?"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_the_set_up_is_named_by_the_hosts_health(
    admin: Api, cloudrun: CloudRun, code: grpc.StatusCode, message: str, sentence: str
) -> None:
    cloudrun.fail("ListJobs", code, message, times=100)
    values = {"name": "wrong", "executorType": "CLOUDRUN", "config": cloudrun.config()}
    host = await admin(CREATE_HOST, input=values)
    assert host["health"]["status"] == "UNHEALTHY"
    assert sentence in host["health"]["error"]


def test_check_names_the_missing_permission(
    cloudrun: CloudRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(tmp_path) as served:
        values = {"name": "region", "executorType": "CLOUDRUN", "config": cloudrun.config()}
        token = served.token
        assert served.query(token, CREATE_HOST, input=values)["health"]["status"] == "HEALTHY"
        served.terminate()
    assert "Host region (cloudrun) is healthy" in command(tmp_path, "check").stdout
    cloudrun.fail("ListJobs", Code.PERMISSION_DENIED, "no", times=100)
    checked = command(tmp_path, "check")
    assert checked.returncode == 1
    assert "is not healthy: host region: the credentials lack the permission run.jobs.list" in checked.stdout
    cloudrun.repair()
    with Served(tmp_path) as served:
        cloudrun.fail("CreateJob", Code.PERMISSION_DENIED, "Permission 'run.jobs.create' denied.", times=100)
        served.query(token, SUBMIT, input={"image": "busybox"})
        wrong = '{ host(name: "region") { health { error } } }'
        eventually_sync(lambda: served.query(token, wrong)["health"]["error"], 10, "the launch is refused")
        served.terminate()
    checked = command(tmp_path, "check")
    assert checked.returncode == 1
    assert (
        "has refused its last launches: host region: the credentials lack the permission run.jobs.create"
        in checked.stdout
    )
    cloudrun.repair()
    cloudrun.fail("ListJobs", Code.RESOURCE_EXHAUSTED, "Quota exceeded.", times=100)
    assert "is healthy, but takes no jobs now: host region: a quota of Cloud Run" in command(tmp_path, "check").stdout


class Tokens(BaseHTTPRequestHandler):
    """Gives access tokens for service accounts."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        token = self.path.removeprefix("/token/")
        answer = json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Its output is not read."""


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Path]:
    """A service account's key file."""
    tokens = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=tokens.serve_forever, daemon=True).start()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    path = tmp_path / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account", "client_email": "runner@demo-project.iam.gserviceaccount.com",
                "private_key": pem, "token_uri": f"http://127.0.0.1:{tokens.server_port}/token/of-the-account",
            }
        )
    )  # fmt: skip
    yield path
    tokens.shutdown()
    tokens.server_close()


def test_a_service_account_speaks_tls(account: Path, tmp_path: Path) -> None:
    authority, server = Authority(), CloudRun()
    (certificate := tmp_path / "ca.pem").write_text(authority.pem)
    chain, key = authority.issue("localhost")
    server.credentials = grpc.ssl_server_credentials([(key.encode(), chain.encode())])
    server.start()
    variables = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate), "NO_GCE_CHECK": "true", "HOME": str(tmp_path)}
    with Served(tmp_path / "home", **variables) as served:
        config = {"project": PROJECT, "region": REGIONS[0], "endpoint": f"localhost:{server.port}", "poll_seconds": 0.3}
        host = {"name": "region", "executorType": "CLOUDRUN", "config": {**config, "credentials": str(account)}}
        made = served.query(served.token, CREATE_HOST, input=host)
        assert made["health"] == {"status": "HEALTHY", "error": None, "consecutiveFailures": 0}
        assert server.metadata[-1]["authorization"] == "Bearer of-the-account"
        # A key that is renewed in its file is read when the old one is refused.
        account.write_text(account.read_text().replace("/token/of-the-account", "/token/renewed"))
        server.fail("ListJobs", grpc.StatusCode.UNAUTHENTICATED, "expired")
        for _ in range(2):
            served.query(served.token, "mutation { checkHealth { id } }")
        assert server.metadata[-1]["authorization"] == "Bearer renewed"
        none = {"name": "none", "executorType": "CLOUDRUN", "config": {**config, "credentials": "/no/such/key.json"}}
        error = served.query(served.token, CREATE_HOST, input=none)["health"]["error"]
        assert error.startswith(
            "host none: config.credentials: '/no/such/key.json' is not a service account's key file that this service"
        )
        default = {"name": "default", "executorType": "CLOUDRUN", "config": config}
        error = served.query(served.token, CREATE_HOST, input=default)["health"]["error"]
        assert "there are no application default credentials on this machine" in error
        assert served.terminate() == 0
    server.stop()


# ------------------------------------------------------------------ logs


async def test_without_the_package_for_logs_the_api_says_why_there_are_none(
    admin: Api, cloudrun: CloudRun, region: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "container_manager.executors.cloudrun.logs")
    monkeypatch.setitem(sys.modules, "google.cloud.logging_v2.services.logging_service_v2", None)
    job = await ended(admin, (await admin.submit(command=["sh", "-c", "echo hello"]))["id"])
    (line,) = [edge["node"]["text"] for edge in job["logs"]["edges"]]
    assert job["status"] == "SUCCEEDED"
    assert line == (
        "[container-manager: the output could not be read: Cloud Run keeps it in Cloud Logging; to read it there, "
        "install container-manager[cloudrun-logs].]"
    )


async def test_one_that_writes_much_leaves_the_others_theirs(
    admin: Api, cloudrun: CloudRun, region: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.executors.cloudrun.logs.MOST_PAGES", 3)
    chatty = await admin.submit(command=["sh", "-c", ";".join(f"echo {n}" for n in range(900))])
    others = [await admin.submit(command=["sh", "-c", "sleep 0.1; echo mine"]) for _ in range(4)]
    for other in others:
        job = await ended(admin, other["id"])
        assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["mine"]
    await ended(admin, chatty["id"])
    last = "query($id: ID!) { job(id: $id) { logs(first: 1000) { edges { node { text } } } } }"
    lines = [edge["node"]["text"] for edge in (await admin(last, id=chatty["id"]))["logs"]["edges"]]
    assert lines[:2] == ["0", "1"]
    assert lines[-1] == "[container-manager: only the first 300 lines; Cloud Logging has the rest]"


async def test_output_that_comes_late_and_empty_lines_are_kept(
    admin: Api, cloudrun: CloudRun, region: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.executors.cloudrun.logs.SILENT", 2)
    cloudrun.log_seconds = 1.2
    job = await ended(
        admin, (await admin.submit(command=["sh", "-c", "echo a; sleep 0.1; echo; sleep 0.1; echo b"]))["id"]
    )
    assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["a", "", "b"]


async def test_a_host_that_is_changed_while_output_is_read_loses_nothing(
    admin: Api, cloudrun: CloudRun, region: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.executors.cloudrun.logs.SILENT", 3)
    cloudrun.log_seconds = 1.5
    job = await admin.submit(command=["sh", "-c", "echo here"])
    await eventually(lambda: cloudrun.calls["ListLogEntries"])
    await admin(
        "mutation($id: ID!) { updateHost(id: $id, input: {maxConcurrentJobs: 7}) { __typename } }", id=region["id"]
    )
    job = await ended(admin, job["id"])
    assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["here"]


async def test_output_is_live(admin: Api, cloudrun: CloudRun, region: dict) -> None:
    job = await running(admin, (await admin.submit(command=["sh", "-c", "echo a; sleep 2; echo b; sleep 1"]))["id"])
    query = "subscription($id: ID!) { jobLogs(id: $id) { text } }"
    async with admin.subscribe(query, id=job["id"]) as lines:
        assert (await anext(lines))["text"] == "a"
        assert (await admin.job(job["id"]))["status"] == "RUNNING"
        assert [line["text"] async for line in lines] == ["b"]


# ------------------------------------------------------------------ when much goes wrong


async def test_two_hundred_jobs_end_in_their_true_state_over_a_bad_network(
    admin: Api, cloudrun: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, infrastructure_retries=20)
    for region in REGIONS:
        await add_region(admin, cloudrun, region, maxConcurrentJobs=25, config={"poll_seconds": 2})
    cloudrun.unavailable, cloudrun.lost = 0.10, 0.05
    jobs = [
        {
            "image": "busybox:test",
            "name": str(n),
            "command": ["sh", "-c", f"sleep 0.{n % 10}; exit {3 * (n % 10 == 0)}"],
        }
        for n in range(200)
    ]
    assert len(await admin(SUBMIT_MANY, inputs=jobs)) == 200
    await eventually(lambda: ended_more_than(60), 60)
    await asyncio.to_thread(cut_for, cloudrun, 5)
    await eventually(all_ended, 90)
    async for job in ContainerJob.objects.all():
        expected = 3 * (int(job.name) % 10 == 0)
        assert (job.status, job.exit_code) == ("failed" if expected else "succeeded", expected), job.error
        (run,) = cloudrun.runs_of({"container-manager-job": str(job.pk)})
        assert run.labels["container-manager-attempt"] == str(job.attempt)
        assert not run.was_cancelled
    refused = {name for name in cloudrun.refused if name.endswith("RESOURCE_EXHAUSTED")}
    assert not refused, "no more is asked than the quotas allow"
    cloudrun.unavailable = cloudrun.lost = 0
    await eventually(lambda: not cloudrun.jobs, 30)


def cut_for(server: CloudRun, seconds: float) -> None:
    with server.down():
        time.sleep(seconds)


async def ended_more_than(count: int) -> bool:
    return await ContainerJob.objects.filter(status__in=["succeeded", "failed"]).acount() > count


# ------------------------------------------------------------------ own engines first


async def test_own_engines_come_first_and_cloud_run_takes_what_does_not_fit(
    admin: Api, cloudrun: CloudRun, engine: Engine, other_engine: Engine
) -> None:
    for name, place in (("own-1", engine), ("own-2", other_engine)):
        values = {
            "name": name,
            "executorType": "DOCKER",
            "config": {"url": place.url},
            "maxConcurrentJobs": 10,
            "maxCpuCores": 50,
        }
        assert (await admin(CREATE_HOST, input=values))["health"]["status"] == "HEALTHY"
    await add_region(admin, cloudrun, name="elastic", routingWeight=0, maxConcurrentJobs=10)
    jobs = [{"image": "busybox:test", "command": ["sh", "-c", "sleep 1"], "name": str(n)} for n in range(100)]
    submitted = await admin(SUBMIT_MANY, inputs=jobs)
    assert len(submitted) == 100
    first = [
        job.host.name if job.host else "" async for job in ContainerJob.objects.select_related("host").order_by("pk")
    ]
    assert [name.startswith("own") for name in first[:20]] == [True] * 20, "the engines are filled first"
    assert first[20:] == ["elastic"] * 10 + [""] * 70, "then the region, and the rest waits"
    await eventually(all_ended, 120)
    later = [job.host.name async for job in ContainerJob.objects.select_related("host").order_by("pk")][30:]
    assert any(name.startswith("own") for name in later), "back on the engines as soon as they have room"
    assert {job.status async for job in ContainerJob.objects.all()} == {"succeeded"}
    last = await admin.submit(command=["true"])
    assert last["host"]["name"].startswith("own")
    await ended(admin, last["id"])
    assert len(cloudrun.runs) == sum(name == "elastic" for name in [*first[:30], *later])


async def all_ended() -> bool:
    return not await ContainerJob.objects.exclude(
        status__in=["succeeded", "failed", "cancelled", "timed_out"]
    ).aexists()
