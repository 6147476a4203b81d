"""Output, disk, memory files, processes and capabilities on real engines."""

import asyncio
import base64
from collections.abc import Iterator

import pytest
from asgiref.sync import sync_to_async

from container_manager.store import outputs
from tests import engines
from tests.client import CREATE_HOST, SUBMIT, Api
from tests.engines import Engine, EngineApi, Podman
from tests.eventually import eventually
from tests.jobs import CANCEL, ended, running

LOGS = "subscription($id: ID!) { jobLogs(id: $id) { stream text } }"
HOST = "query($id: ID!) { host(id: $id) { health { status error } } }"
DISK_MB = 160


async def add_host(api: Api, engine: EngineApi, **config: object) -> dict:
    values = {"name": "limited", "executorType": "DOCKER", "config": {"url": engine.url, **config}}
    host = await api(CREATE_HOST, input={**values, "maxCpuCores": 100.0, "maxConcurrentJobs": 20})
    assert host["health"]["status"] == "HEALTHY", host
    return host


async def kept(job: dict) -> list[str]:
    """The stored output; through the API it would come in many pages."""
    number = int(base64.b64decode(job["id"]).decode().partition(":")[2])
    wanted = outputs.Wanted(number, None, 1_000_000)
    return [line.line.text for line in (await sync_to_async(outputs.pages)([wanted], 10**9))[wanted]]


async def run(api: Api, script: str, **wishes: object) -> dict:
    return await ended(api, (await api.submit(command=["sh", "-c", script], **wishes))["id"])


@pytest.fixture(scope="module")
def small() -> Iterator[Engine]:
    """An engine with a small disk that would keep little output by itself."""
    if (why := engines.missing()) is not None:
        pytest.skip(why)
    engine = Engine(DISK_MB, "--log-opt", "max-size=100k", "--log-opt", "max-file=2").start()
    yield engine
    engine.stop()


async def test_output_is_whole_whatever_the_engine_keeps_by_default(admin: Api, small: Engine) -> None:
    await add_host(admin, small)
    lines = [str(number) for number in range(1, 60_001)]
    job = await run(admin, "seq 1 60000")
    assert await kept(job) == lines
    job = await run(admin, "echo first; seq 1 300000; echo last", cpuLimit=1.0)
    found = await kept(job)
    assert (found[0], found[-1]) == ("first", "last")
    (marker,) = [text for text in found if "dropped here" in text]
    dropped = int(marker.removeprefix("[container-manager: ").split()[0])
    assert dropped == 300_002 - (len(found) - 1)


async def test_a_job_that_writes_without_end_does_not_fill_the_disk(admin: Api, small: Engine) -> None:
    await add_host(admin, small)
    chatty = await admin.submit(command=["sh", "-c", "head -c 200000000 /dev/zero | tr '\\0' x"], cpuLimit=1.0)
    innocent = await admin.submit(command=["sh", "-c", "sleep 4; dd if=/dev/zero of=/file bs=1M count=4"])
    least = DISK_MB
    while (job := await admin.job(chatty["id"]))["status"] not in {"SUCCEEDED", "FAILED"}:
        least = min(least, small.free_mb())
        await asyncio.sleep(0.05)
    assert job["status"] == "SUCCEEDED"
    assert least > 10
    assert (await ended(admin, innocent["id"]))["status"] == "SUCCEEDED"
    assert any("host keeps 96 MiB of output" in text for text in await kept(job))


@pytest.mark.parametrize("kind", [Engine, Podman])
async def test_a_full_disk_is_the_hosts_fault_and_shown_there(
    admin: Api, kind: type[Engine | Podman], monkeypatch: pytest.MonkeyPatch
) -> None:
    why = engines.missing() if kind is Engine else engines.podman_missing()
    if why is not None:
        pytest.skip(why)
    monkeypatch.setenv("CONTAINER_MANAGER_INFRASTRUCTURE_RETRIES", "1")
    engine = await asyncio.to_thread(kind(60).start)
    try:
        host = await add_host(admin, engine)
        await asyncio.to_thread((engine.data / "ballast").write_bytes, bytes(2**20 * (engine.free_mb() - 1)))
        job = await admin.submit(command=["true"])
        error = await eventually(lambda: _error_of(admin, host["id"]), 30)
        assert "no space left on device" in error
        await asyncio.to_thread((engine.data / "ballast").unlink)
        assert (await ended(admin, job["id"], 60))["status"] == "SUCCEEDED"
        assert await _error_of(admin, host["id"]) is None
    finally:
        await asyncio.to_thread(engine.stop)


async def _error_of(api: Api, host_id: str) -> str | None:
    return (await api(HOST, id=host_id))["health"]["error"]


async def test_a_progress_bar_is_live_and_keeps_its_last_state(admin: Api, engine: Engine) -> None:
    await add_host(admin, engine)
    bar = "i=0; while [ $i -lt 6000 ]; do printf 'step %s of 6000\\r' $i; i=$((i+1)); done; sleep 2; echo LAST STATE"
    job = await admin.submit(command=["sh", "-c", bar])
    async with admin.subscribe(LOGS, id=job["id"]) as lines:
        first = await anext(lines)
        assert (await admin.job(job["id"]))["status"] == "RUNNING", "it is live"
        assert first["text"].startswith("step ")
        rest = [line["text"] async for line in lines]
    assert rest[-1] == "LAST STATE"
    assert await kept(job) == [first["text"], *rest]
    assert len(rest) < 50


async def test_a_job_may_have_more_shared_memory(admin: Api, engine: Engine) -> None:
    await add_host(admin, engine)
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=100"
    wishes = {"memoryLimitMb": 256}
    assert (await run(admin, fill, **wishes))["status"] == "FAILED"
    assert (await run(admin, fill, **wishes, shmSizeMb=128))["status"] == "SUCCEEDED"
    job = await admin.submit(command=["true"], shmSizeMb=128, preferredExecutor="CLOUDRUN", executorRequired=True)
    assert job["waitingOn"]["rejections"][0]["code"] == "EXECUTOR_TYPE"
    await admin(CANCEL, id=job["id"])
    refused = await admin(SUBMIT, input={"image": "busybox", "tmpfs": [{"path": "/dev/shm", "sizeMb": 1}]})
    assert refused["message"] == "tmpfs.0.path: must not be /dev/shm; its size is the job's shmSizeMb."


async def test_a_host_sets_how_many_processes_and_which_capabilities_its_containers_have(
    admin: Api, engine: Engine
) -> None:
    few = await add_host(admin, engine, max_processes=20)
    fork = "i=0; while [ $i -lt 30 ]; do sleep 3 & i=$((i+1)); done; wait; echo all"
    assert await kept(job := await run(admin, fork)) != ["all"]
    assert job["status"] == "FAILED"
    assert (await run(admin, "touch /x; chown 1 /x"))["status"] == "FAILED"
    await admin("mutation($id: ID!) { deleteHost(id: $id) { __typename } }", id=few["id"])
    await add_host(admin, engine, max_processes=100, capabilities=["CHOWN"])
    assert (await run(admin, fork))["status"] == "SUCCEEDED"
    job = await running(admin, (await admin.submit(command=["sh", "-c", "chown 1 /bin && sleep 2"]))["id"])
    assert engine.inspect(job["executionId"])["HostConfig"]["CapAdd"] == ["CHOWN"]
    assert (await ended(admin, job["id"]))["status"] == "SUCCEEDED"
