"""The main job against a real Docker engine, through the API."""

import asyncio
import time

import pytest

from tests.client import CREATE_HOST, EVENTS, Api
from tests.engines import Engine
from tests.eventually import eventually

ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"}


@pytest.fixture
async def host(admin: Api, engine: Engine) -> dict:
    input = {"name": "engine", "executorType": "DOCKER", "config": {"url": engine.url}, "maxConcurrentJobs": 5}
    host = await admin(CREATE_HOST, input=input)
    assert host["health"]["status"] == "HEALTHY", host
    return host


async def ended(api: Api, job_id: str, timeout: float = 60) -> dict:
    async def look() -> dict | None:
        job = await api.job(job_id)
        return job if job["status"] in ENDED else None

    return await eventually(look, timeout)


async def test_a_job_runs_from_submission_to_its_output(admin: Api, host: dict, engine: Engine) -> None:
    cursor = await admin("{ eventCursor }")
    async with admin.subscribe(EVENTS, after=cursor) as events:
        job = await admin.submit(command=["sh", "-c", "echo out; echo err >&2; exit 3"], environment=[])
        assert (job["status"], job["host"]["name"]) == ("ROUTED", "engine")
        assert job["routingReason"] == "The only choice; 1 of 1 hosts fit."
        kinds = []
        async for event in events:
            assert event["job"]["id"] == job["id"]
            kinds.append(event["kind"])
            if event["kind"] == "JOB_FINISHED":
                break
    assert kinds == ["JOB_SUBMITTED", "JOB_ROUTED", "JOB_LAUNCHED", "JOB_STARTED", "JOB_FINISHED"]
    job = await admin.job(job["id"])
    assert (job["status"], job["exitCode"]) == ("FAILED", 3)
    lines = sorted((edge["node"]["stream"], edge["node"]["text"]) for edge in job["logs"]["edges"])
    assert lines == [("STDERR", "err"), ("STDOUT", "out")]
    await eventually(lambda: engine.containers() == [], what="the container is removed")


async def test_what_runs_in_the_container_is_bounded_and_unprivileged(admin: Api, host: dict) -> None:
    script = (
        "echo $GREETING; grep -E 'CapEff|NoNewPrivs' /proc/self/status; "
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; ls /sys/class/net"
    )
    job = await admin.submit(
        command=["sh", "-c", script],
        environment=[{"name": "GREETING", "value": "a=b ünï"}],
        memoryLimitMb=32,
    )
    lines = [edge["node"]["text"] for edge in (await ended(admin, job["id"]))["logs"]["edges"]]
    assert lines == ["a=b ünï", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", str(32 * 1024 * 1024), "lo"]


async def test_fifty_jobs_never_exceed_five_slots(admin: Api, host: dict, engine: Engine) -> None:
    submit = "mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) { ... on ContainerJob { id } } }"
    inputs = [{"image": "busybox:test", "command": ["sleep", "0.2"], "cpuLimit": 0.1} for _ in range(50)]
    jobs = [job["id"] for job in await admin(submit, inputs=inputs)]
    most = 0
    pending = set(jobs)
    async with asyncio.timeout(150):
        while pending:
            most = max(
                most, sum(c["State"] in {"created", "running"} for c in await asyncio.to_thread(engine.containers))
            )
            query = "{ jobs(first: 100) { edges { node { id status } } } }"
            states = {edge["node"]["id"]: edge["node"]["status"] for edge in (await admin(query))["edges"]}
            pending = {job for job in jobs if states[job] not in ENDED}
    assert set(states.values()) == {"SUCCEEDED"}
    assert 1 < most <= 5


async def test_cancelling_stops_the_container_first(admin: Api, host: dict, engine: Engine) -> None:
    job = await admin.submit(command=["sleep", "60"])
    await eventually(lambda: _has_status(admin, job["id"], "RUNNING"))
    cancel = "mutation($id: ID!) { cancelJob(id: $id) { __typename ... on ContainerJob { status cancelRequestedAt } } }"
    assert (await admin(cancel, id=job["id"]))["cancelRequestedAt"]
    assert (await ended(admin, job["id"]))["status"] == "CANCELLED"
    assert engine.containers() == []


async def test_a_job_that_runs_too_long_is_stopped(admin: Api, host: dict) -> None:
    job = await admin.submit(command=["sleep", "60"], timeoutSeconds=1)
    job = await ended(admin, job["id"])
    assert job["status"] == "TIMED_OUT"
    assert "timeout of 1 s" in job["error"]


async def test_an_image_that_is_not_there_is_named(admin: Api, engine: Engine) -> None:
    config = {"url": engine.url, "pull": "never"}
    await admin(CREATE_HOST, input={"name": "strict", "executorType": "DOCKER", "config": config})
    job = await ended(admin, (await admin.submit(image="no-such/image:1"))["id"])
    assert job["status"] == "FAILED"
    assert job["error"].startswith("image: 'no-such/image:1' is not on host strict")


async def test_a_command_that_is_not_there_is_named(admin: Api, host: dict) -> None:
    job = await ended(admin, (await admin.submit(command=["/no/such/program"]))["id"])
    assert job["status"] == "FAILED"
    assert "/no/such/program" in job["error"]


async def test_an_end_for_want_of_memory_is_named(admin: Api, host: dict) -> None:
    # Not at once: the engine only begins to look a moment after the start, and knows of nothing before.
    hog = ["sh", "-c", "sleep 0.3; x=1234567890123456; while true; do x=$x$x; done"]
    job = await ended(admin, (await admin.submit(command=hog, memoryLimitMb=16))["id"])
    assert (job["status"], job["exitCode"], job["error"]) == ("FAILED", 137, "It used more memory than its limit.")


async def test_a_hanging_engine_delays_no_other(admin: Api, host: dict, other_engine: Engine) -> None:
    input = {"name": "hanging", "executorType": "DOCKER", "config": {"url": other_engine.url}, "routingWeight": 0}
    await admin(CREATE_HOST, input=input)
    other_engine.pause()
    check = "mutation { checkHealth { name health { status latencyMs error } } }"
    began = time.monotonic()
    found = {entry["name"]: entry["health"] for entry in await admin(check)}
    assert time.monotonic() - began < 10
    assert found["engine"]["latencyMs"] < 3000
    assert "No answer within 3 s" in found["hanging"]["error"]
    stuck = await admin(
        "mutation($id: ID!) { drainHost(id: $id) { ... on ExecutorHost { name } } }", id=host["id"]
    ) and await admin.submit(command=["true"])
    assert stuck["host"]["name"] == "hanging"
    await admin("mutation($id: ID!) { resumeHost(id: $id) { ... on ExecutorHost { name } } }", id=host["id"])
    began = time.monotonic()
    quick = await ended(admin, (await admin.submit(command=["true"]))["id"])
    assert (quick["status"], quick["host"]["name"]) == ("SUCCEEDED", "engine")
    assert time.monotonic() - began < 20
    other_engine.resume()
    assert (await ended(admin, stuck["id"], 90))["status"] == "SUCCEEDED"


async def test_a_program_that_obeys_our_signal_is_cancelled_or_timed_out(admin: Api, host: dict) -> None:
    obedient = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done"]
    late = await admin.submit(command=obedient, timeoutSeconds=1)
    cancelled = await admin.submit(command=obedient)
    await eventually(lambda: _has_status(admin, cancelled["id"], "RUNNING"))
    await admin("mutation($id: ID!) { cancelJob(id: $id) { __typename } }", id=cancelled["id"])
    assert (await ended(admin, cancelled["id"]))["status"] == "CANCELLED"
    assert (await ended(admin, late["id"]))["status"] == "TIMED_OUT"


async def test_a_host_can_be_changed_while_jobs_run_on_it(admin: Api, host: dict) -> None:
    job = await admin.submit(command=["sh", "-c", "sleep 1; echo done"])
    await eventually(lambda: _has_status(admin, job["id"], "RUNNING"))
    update = "mutation($id: ID!, $input: HostPatch!) { updateHost(id: $id, input: $input) { __typename } }"
    for change in ({"routingWeight": 7}, {"config": {**host["config"], "max_launches": 2}}):
        assert (await admin(update, id=host["id"], input=change))["__typename"] == "ExecutorHost"
    done = await ended(admin, job["id"], 20)
    assert (done["status"], done["attempt"]) == ("SUCCEEDED", 1)
    assert [edge["node"]["text"] for edge in done["logs"]["edges"]] == ["done"]


async def test_a_lot_of_output_is_bounded_and_in_time(admin: Api, host: dict) -> None:
    job = await admin.submit(command=["seq", "300000"], cpuLimit=1)
    await ended(admin, job["id"])
    query = "query($id: ID!) { job(id: $id) { logs(first: 1) { edges { node { text } } } } }"
    assert (await admin(query, id=job["id"]))["logs"]["edges"][0]["node"]["text"] == "1"


async def test_a_start_that_the_engine_refuses_leaves_nothing_behind(admin: Api, engine: Engine) -> None:
    config = {"url": engine.url, "network": "no-such-network"}
    await admin(CREATE_HOST, input={"name": "offline", "executorType": "DOCKER", "config": config})
    job = await ended(admin, (await admin.submit(command=["true"]))["id"])
    assert job["status"] == "FAILED"
    assert "no-such-network" in job["error"]
    assert engine.containers() == []


async def test_an_engine_that_breaks_during_a_start_is_not_the_jobs_fault(
    admin: Api, host: dict, engine: Engine
) -> None:
    # An engine that is being ended answers 400 then, because it finds the job's "sh" in its own word "shim".
    with engine.without_network():
        job = await admin.submit(command=["sh", "-c", "exit 3"])
        await eventually(lambda: _has_status(admin, job["id"], "PENDING"))
    job = await ended(admin, job["id"])
    assert (job["status"], job["exitCode"]) == ("FAILED", 3)
    assert job["attempt"] > 1


async def _has_status(api: Api, job_id: str, status: str) -> bool:
    return (await api.job(job_id))["status"] == status
