"""Jobs on real engines, through the API: the kinds of ends, live output, and what a job may ask for."""

import asyncio
import gc
import itertools
import json
import signal
from collections.abc import AsyncIterator

import pytest

from tests.client import CREATE_HOST, USER_ERRORS, Api
from tests.engines import Engine
from tests.eventually import eventually
from tests.jobs import CANCEL, ended, running

ATTEMPTS = """query($id: ID!) { job(id: $id) { status attempt attempts {
    attempt status exitCode error hostName executionId startedAt finishedAt host { name } decision { reason } } } }"""
LOGS = "subscription($id: ID!, $after: String) { jobLogs(id: $id, after: $after) { cursor stream at text } }"
KEPT = """query($id: ID!, $after: String, $first: Int) { job(id: $id) { logs(after: $after, first: $first) {
    edges { node { cursor text } } pageInfo { hasNextPage } } } }"""
RETRY = "mutation($id: ID!) { retryJob(id: $id) { __typename ... on ContainerJob { status attempt error } ... on UserError { message } } }"
LOST = f"mutation($id: ID!) {{ declareHostLost(id: $id) {{ __typename ... on ExecutorHost {{ isActive }} {USER_ERRORS} }} }}"
names = itertools.count()


async def add_host(api: Api, engine: Engine, name: str = "", **input: object) -> dict:
    config = {"url": engine.url, **input.pop("config", {})}
    # With both limits several hosts may share an engine.
    limits = {"maxCpuCores": 100.0, "maxMemoryMb": 10_000}
    values = {"name": name or f"engine-{next(names)}", "executorType": "DOCKER", "config": config, **limits}
    host = await api(CREATE_HOST, input={**values, **input})
    assert host["health"]["status"] == "HEALTHY", host
    return host


@pytest.fixture
async def host(admin: Api, engine: Engine) -> dict:
    return await add_host(admin, engine)


# ------------------------------------------------------------------ ends


@pytest.mark.parametrize("code", [0, 1, 137, 143, 255])
async def test_an_exit_code_of_its_own_is_the_verdict(admin: Api, host: dict, code: int) -> None:
    job = await ended(admin, (await admin.submit(command=["sh", "-c", f"exit {code}"]))["id"])
    assert (job["status"], job["exitCode"]) == ("FAILED" if code else "SUCCEEDED", code)
    assert job["attempt"] == 1
    # Whether a program has chosen such a code itself cannot be seen.
    by_signal = {137: "Exit code 137 stands for SIGKILL, ", 143: "Exit code 143 stands for SIGTERM, "}
    assert job["error"].startswith(by_signal.get(code, "")), job
    assert code in by_signal or job["error"] == ""


TRAPS = "trap 'exit {}' INT TERM; i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done"


@pytest.mark.parametrize(
    ("script", "how", "code", "by"),
    [
        ("sleep 60", "KILL", 137, ""),
        ("sleep 60", "INT", 130, " with SIGINT"),
        ("sleep 60", "stop", 143, " with SIGTERM"),
        (TRAPS.format(3), "stop", 3, " with SIGTERM"),
        (TRAPS.format(0), "stop", 0, " with SIGTERM"),
        (TRAPS.format(0), "INT", 0, " with SIGINT"),
    ],
)
async def test_a_container_that_is_ended_from_outside_has_failed_whatever_it_made_of_the_signal(
    admin: Api, host: dict, engine: Engine, script: str, how: str, code: int, by: str
) -> None:
    job = await running(admin, (await admin.submit(command=["sh", "-c", script.replace(";", "; echo up;", 1)]))["id"])
    if ";" in script:
        # It has set its traps.
        async with admin.subscribe(LOGS, id=job["id"]) as lines:
            await anext(lines)
    if how == "stop":
        await asyncio.to_thread(engine.stop_container, job["executionId"])
    else:
        engine.kill_container(job["executionId"], how)
    job = await ended(admin, job["id"])
    assert (job["status"], job["exitCode"], job["attempt"]) == ("FAILED", code, 1)
    assert job["error"] == f"It was killed on its host{by}, and not by this service."


async def test_a_container_that_is_restarted_by_hand_runs_neither_twice_nor_beside_the_next_attempt(
    admin: Api, host: dict, engine: Engine
) -> None:
    journal = engine.folder / "restarted"
    journal.mkdir(exist_ok=True)
    mounts = {"/journal": {"source": str(journal), "read_only": False}}
    await admin("mutation($id: ID!) { deleteHost(id: $id) { __typename } }", id=host["id"])
    await add_host(admin, engine, config={"mounts": mounts})
    script = "echo $CONTAINER_MANAGER_ATTEMPT >> /journal/runs; sleep 3; exit 4"
    job = await running(admin, (await admin.submit(command=["sh", "-c", script], maxAttempts=2))["id"])
    await eventually((journal / "runs").exists)
    await asyncio.to_thread(engine.restart_container, job["executionId"])
    done = await ended(admin, job["id"], 40)
    assert (done["status"], done["exitCode"], done["attempt"]) == ("FAILED", 4, 2)
    first = (await admin(ATTEMPTS, id=job["id"]))["attempts"][0]
    assert first["error"] == "It was killed on its host with SIGTERM, and not by this service."
    # The person's run was ended before the next attempt began.
    runs = (journal / "runs").read_text().split()
    assert runs in (["1", "1", "2"], ["1", "2"]), runs
    await eventually(lambda: engine.containers() == [], what="nothing is left")


async def test_a_container_with_the_next_jobs_name_is_not_taken_for_the_jobs(
    admin: Api, host: dict, engine: Engine
) -> None:
    job = await running(admin, (await admin.submit(command=["sleep", "60"]))["id"])
    labels = engine.inspect(job["executionId"])["Config"]["Labels"]
    await admin(CANCEL, id=job["id"])
    # The last one is what a job was that a restored backup of the database no longer knows.
    labels["container-manager.job"] = number = str(int(labels["container-manager.job"]) + 1)
    name = f"cm-{labels['container-manager.instance']}-{number}-1"
    for more in ({}, labels):
        engine.create_container(f"{name}{'-old' if more else ''}", ["echo", "OLD"], **more)
    job = await ended(admin, (await admin.submit(command=["echo", "NEW"]))["id"])
    assert (job["status"], job["attempt"]) == ("SUCCEEDED", 1)
    assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["NEW"]


async def test_a_failure_is_its_own_also_when_the_engine_has_forgotten_its_start(
    admin: Api, host: dict, engine: Engine
) -> None:
    job = await running(admin, (await admin.submit(command=["sh", "-c", "sleep 4; exit 143"], maxAttempts=1))["id"])
    await asyncio.to_thread(engine.make_events, 300)
    job = await ended(admin, job["id"])
    assert (job["status"], job["exitCode"], job["attempt"]) == ("FAILED", 143, 1)


async def test_a_mistake_of_the_job_is_the_jobs_and_one_of_the_host_is_the_hosts(admin: Api, engine: Engine) -> None:
    mounts = {"/data": {"source": "/does/not/exist"}}
    wrong = await add_host(admin, engine, "wrong", config={"mounts": mounts}, routingWeight=1000)
    job = await admin.submit(command=["true"])
    assert job["host"]["name"] == "wrong"
    await add_host(admin, engine, "right")
    await admin("mutation($id: ID!) { drainHost(id: $id) { __typename } }", id=wrong["id"])
    done = await ended(admin, job["id"])
    assert (done["status"], done["host"]["name"]) == ("SUCCEEDED", "right")
    first = (await admin(ATTEMPTS, id=job["id"]))["attempts"][0]
    assert "bind source path does not exist: /does/not/exist" in first["error"]
    for wish in ({"user": "nobody"}, {"workingDir": "/bin/sh"}):
        done = await ended(admin, (await admin.submit(command=["true"], **wish))["id"])
        assert (done["status"], done["attempt"]) == ("FAILED", 1), done
        assert next(iter(wish.values())) in done["error"]


ONCE = "if [ $CONTAINER_MANAGER_ATTEMPT = 1 ]; then {}; else sleep 1; fi"


@pytest.mark.parametrize(
    ("how", "script"),
    [
        (signal.SIGTERM, "sleep 3"),
        (signal.SIGKILL, "sleep 3"),
        (signal.SIGTERM, ONCE.format(TRAPS.format(0))),
        (signal.SIGTERM, ONCE.format(TRAPS.format(1))),
    ],
)
async def test_what_a_restarted_engine_has_ended_runs_again(
    admin: Api, other_engine: Engine, how: signal.Signals, script: str
) -> None:
    await add_host(admin, other_engine, "restarted")
    job = await running(admin, (await admin.submit(command=["sh", "-c", f"echo here; {script}"]))["id"])
    other_engine.restart(how)
    job = await ended(admin, job["id"], 90)
    assert (job["status"], job["attempt"]) == ("SUCCEEDED", 2)
    first, second = (await admin(ATTEMPTS, id=job["id"]))["attempts"]
    assert "was restarted, which ended the container" in first["error"]
    assert (first["status"], first["hostName"], first["host"]["name"]) == ("FAILED", "restarted", "restarted")
    assert first["executionId"] != second["executionId"]
    assert first["startedAt"] < first["finishedAt"] <= second["startedAt"]
    assert first["decision"]["reason"] == "The only choice; 1 of 1 hosts fit."
    assert second["decision"]["reason"].startswith("Each host that could take it now has failed it before. ")
    assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["here", "here"]
    await eventually(lambda: other_engine.containers() == [], what="nothing is left")


async def test_an_engine_whose_containerd_hangs_is_unhealthy_and_affects_no_other(
    admin: Api, host: dict, other_engine: Engine
) -> None:
    wedged = await add_host(admin, other_engine, "wedged", routingWeight=1000)
    other_engine.pause("containerd")
    check = "mutation { checkHealth { name health { status consecutiveFailures error } } }"
    for _ in range(3):
        found = {entry["name"]: entry["health"] for entry in await admin(check)}
    assert found["wedged"]["status"] == "UNHEALTHY"
    assert found[host["name"]]["status"] == "HEALTHY"
    for _ in range(3):
        job = await ended(admin, (await admin.submit(command=["true"]))["id"], 20)
        assert (job["status"], job["host"]["name"]) == ("SUCCEEDED", host["name"])
    other_engine.resume("containerd")
    await eventually(lambda: _healthy(admin, wedged["id"]), 60)


async def _healthy(api: Api, host_id: str) -> bool:
    host = await api("query($id: ID!) { host(id: $id) { health { status } } }", id=host_id)
    return host["health"]["status"] == "HEALTHY"


# ------------------------------------------------------------------ again


async def test_a_job_that_failed_is_tried_again_by_hand(admin: Api, host: dict) -> None:
    job = await ended(
        admin, (await admin.submit(command=["sh", "-c", "exit $((4 - CONTAINER_MANAGER_ATTEMPT))"]))["id"]
    )
    assert job["exitCode"] == 3
    again = await admin(RETRY, id=job["id"])
    assert (again["__typename"], again["status"], again["attempt"], again["error"]) == ("ContainerJob", "ROUTED", 2, "")
    assert (await admin(RETRY, id=job["id"]))["__typename"] == "Conflict"
    assert (await ended(admin, job["id"]))["exitCode"] == 2
    attempts = (await admin(ATTEMPTS, id=job["id"]))["attempts"]
    assert [(entry["attempt"], entry["exitCode"]) for entry in attempts] == [(1, 3), (2, 2)]


async def test_the_jobs_of_a_host_declared_lost_run_elsewhere(admin: Api, host: dict, other_engine: Engine) -> None:
    lost = await add_host(admin, other_engine, "lost", routingWeight=0)
    await admin("mutation($id: ID!) { drainHost(id: $id) { __typename } }", id=host["id"])
    job = await running(admin, (await admin.submit(command=["sh", "-c", "sleep 2; echo done"]))["id"])
    assert (await admin(LOST, id=lost["id"]))["__typename"] == "Conflict", "it answers"
    other_engine.pause()
    check = "mutation { checkHealth { name health { status } } }"
    for _ in range(3):
        await admin(check)
    assert (await admin.job(job["id"]))["status"] == "RUNNING", "unknown is not dead"
    assert await admin(LOST, id=lost["id"]) == {"__typename": "ExecutorHost", "isActive": False}
    await admin("mutation($id: ID!) { resumeHost(id: $id) { __typename } }", id=host["id"])
    done = await ended(admin, job["id"], 30)
    assert (done["status"], done["host"]["name"], done["attempt"]) == ("SUCCEEDED", host["name"], 2)
    assert (await admin(ATTEMPTS, id=job["id"]))["attempts"][0]["error"] == "Host lost was declared lost."
    other_engine.resume()
    assert (await admin.job(job["id"]))["status"] == "SUCCEEDED"


# ------------------------------------------------------------------ output


async def test_output_is_live_and_resumes_at_every_line(admin: Api, host: dict) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; sleep 2; echo last; printf unended"
    job = await admin.submit(command=["sh", "-c", script])
    async with admin.subscribe(LOGS, id=job["id"]) as lines:
        first = [await anext(lines) for _ in range(6)]
        assert (await admin.job(job["id"]))["status"] == "RUNNING", "it is live"
        everything = first + [line async for line in lines]
    texts = [(line["stream"], line["text"]) for line in everything]
    assert sorted(texts[:6]) == sorted(
        [(s, f"{w} {i}") for s, w in (("STDOUT", "out"), ("STDERR", "err")) for i in (1, 2, 3)]
    )
    assert texts[6:] == [("STDOUT", "last"), ("STDOUT", "unended")]
    assert (await admin.job(job["id"]))["status"] == "SUCCEEDED", "it ends with the job"
    for at, line in enumerate(everything):
        async with admin.subscribe(LOGS, id=job["id"], after=line["cursor"]) as lines:
            assert [entry async for entry in lines] == everything[at + 1 :]
        kept = (await admin(KEPT, id=job["id"], after=line["cursor"]))["logs"]["edges"]
        assert [edge["node"]["cursor"] for edge in kept] == [entry["cursor"] for entry in everything[at + 1 :]]


async def test_a_reader_that_comes_and_goes_misses_nothing(admin: Api, host: dict) -> None:
    script = (
        "i=0; while [ $i -lt 400 ]; do echo $i; echo e$i >&2; i=$((i+1)); [ $((i % 40)) = 0 ] && sleep 0.2; done; true"
    )
    job = await admin.submit(command=["sh", "-c", script], cpuLimit=1.0)
    seen, cursor = [], None
    for patience in itertools.chain([3, 50, 7, 111, 1, 90], itertools.repeat(10**6)):
        async with admin.subscribe(LOGS, id=job["id"], after=cursor) as lines:
            taken = [line async for line in _first(lines, patience)]
        seen += taken
        cursor = seen[-1]["cursor"]
        if len(taken) < patience:
            break
    numbers = [line["text"] for line in seen if line["stream"] == "STDOUT"]
    assert numbers == [str(n) for n in range(400)]
    assert [line["text"] for line in seen if line["stream"] == "STDERR"] == [f"e{n}" for n in range(400)]


async def _first(lines: AsyncIterator[dict], count: int) -> AsyncIterator[dict]:
    taken = 0
    async for line in lines:
        yield line
        taken += 1
        if taken == count:
            return


async def test_the_output_of_a_job_that_does_not_exist_is_an_error(admin: Api) -> None:
    async with admin.socket() as connection:
        for number, variables in enumerate(
            ({"id": "Q29udGFpbmVySm9iOjk5OTk="}, {"id": "Q29udGFpbmVySm9iOjE=", "after": "x"})
        ):
            message = {"id": str(number), "type": "subscribe", "payload": {"query": LOGS, "variables": variables}}
            await connection.send(json.dumps(message))
            answer = json.loads(await connection.recv())
            (error,) = answer["payload"]["errors"] if answer["type"] == "next" else answer["payload"]
            assert error["extensions"]["code"] == "BAD_USER_INPUT"
            while json.loads(await connection.recv())["type"] != "complete":
                pass


# ------------------------------------------------------------------ what a job may ask for


async def test_a_job_gets_what_it_asks_for_as_far_as_its_host_allows(admin: Api, engine: Engine) -> None:
    await add_host(admin, engine, "strict", config={"allow": {"user": False}}, routingWeight=1000)
    await add_host(admin, engine, "generous", config={"allow": {"user": True}})
    script = "id -u; pwd; touch /x 2>/dev/null || echo read-only; echo hi > /scratch/x && cat /scratch/x; grep -c /scratch /proc/mounts"
    job = await admin.submit(
        entryPoint=["sh", "-c"], command=[script], workingDir="/work", user="1000:1000", readOnlyRoot=True,
        tmpfs=[{"path": "/scratch", "sizeMb": 1}],
    )  # fmt: skip
    assert job["host"]["name"] == "generous"
    done = await ended(admin, job["id"])
    assert [edge["node"]["text"] for edge in done["logs"]["edges"]][:3] == ["1000", "/work", "read-only"], done
    refused = await admin.submit(network="backend", command=["true"])
    assert refused["status"] == "PENDING"
    assert refused["waitingOn"]["verdict"] == "NEVER"
    assert refused["waitingOn"]["rejections"] == [{"code": "EXECUTOR_LIMITS", "hosts": 2}]


# ------------------------------------------------------------------ many


async def test_a_hundred_containers_at_once_do_not_hold_up_the_loop(admin: Api, engine: Engine) -> None:
    import time

    await add_host(admin, engine, "many", maxConcurrentJobs=100, maxMemoryMb=100_000, config={"max_launches": 8})
    submit = "mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) { ... on ContainerJob { id } } }"
    inputs = [{"image": "busybox:test", "command": ["sleep", "600"], "cpuLimit": 0.1, "memoryLimitMb": 16}] * 100
    longest, probing = 0.0, True

    async def probe() -> None:
        # The processor's time, because the machine may give this process none for a while.
        nonlocal longest
        while probing:
            before = time.thread_time()
            await asyncio.sleep(0.01)
            longest = max(longest, time.thread_time() - before)

    # What the tests before have left is not the service's, and would be walked by each full collection.
    gc.collect()
    gc.freeze()
    probe_task = asyncio.create_task(probe())
    jobs = [job["id"] for job in await admin(submit, inputs=inputs)]
    await eventually(lambda: len(engine.running()) == 100, 120)
    for job in jobs:
        await admin(CANCEL, id=job)
    query = "{ jobs(first: 100, filters: {status: [CANCELLED]}) { edges { node { id } } } }"

    async def all_cancelled() -> bool:
        return len((await admin(query))["edges"]) == 100

    await eventually(all_cancelled, 120)
    probing = False
    await probe_task
    assert longest < 0.1
    await eventually(lambda: engine.containers() == [], 90)
