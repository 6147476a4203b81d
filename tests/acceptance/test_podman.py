"""Jobs on a real Podman, through the API: what differs from Docker leads to the same verdicts."""

import asyncio
import random
import time
from datetime import timedelta

import pytest

from tests.client import CREATE_HOST, Api
from tests.engines import Podman
from tests.eventually import eventually
from tests.jobs import CANCEL, ENDED, ended, running

ATTEMPTS = "query($id: ID!) { job(id: $id) { attempts { attempt status exitCode error } } }"
HOST = "query($id: ID!) { host(id: $id) { engine health { status error } } }"


async def add_host(api: Api, podman: Podman, **config: object) -> dict:
    values = {"name": "podman", "executorType": "DOCKER", "config": {"url": podman.url, **config}}
    host = await api(CREATE_HOST, input={**values, "maxCpuCores": 100.0, "maxConcurrentJobs": 20})
    assert host["health"]["status"] == "HEALTHY", host
    return host


async def run(api: Api, *command: str, **wishes: object) -> dict:
    return await ended(api, (await api.submit(command=list(command), **wishes))["id"])


async def test_it_is_called_what_it_is(admin: Api, podman: Podman) -> None:
    host = await add_host(admin, podman)
    found = await admin(HOST, id=host["id"])
    assert found["engine"].startswith("Podman ")
    assert found["health"] == {"status": "HEALTHY", "error": None}


@pytest.mark.parametrize("code", [0, 1, 3, 255])
async def test_an_exit_code_is_the_verdict_of_one_run(admin: Api, podman: Podman, code: int) -> None:
    await add_host(admin, podman)
    job = await run(admin, "sh", "-c", f"echo here; exit {code}", maxAttempts=1)
    assert (job["status"], job["exitCode"]) == ("FAILED" if code else "SUCCEEDED", code)
    assert (job["attempt"], job["error"]) == (1, "")
    assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["here"]
    await eventually(lambda: podman.containers() == [], what="nothing is left")


async def test_an_end_is_noticed_at_once(admin: Api, podman: Podman) -> None:
    await add_host(admin, podman)
    job = await running(admin, (await admin.submit(command=["sleep", "60"]))["id"])
    began = time.monotonic()
    await asyncio.to_thread(podman.kill_container, job["executionId"])
    job = await ended(admin, job["id"])
    assert time.monotonic() - began < 2
    assert (job["status"], job["exitCode"], job["attempt"]) == ("FAILED", 137, 1)
    assert job["error"] == "It was killed on its host, and not by this service."


async def test_a_job_is_cancelled_and_ends_at_its_timeout(admin: Api, podman: Podman) -> None:
    await add_host(admin, podman)
    job = await running(admin, (await admin.submit(command=["sleep", "60"]))["id"])
    await admin(CANCEL, id=job["id"])
    assert (await ended(admin, job["id"]))["status"] == "CANCELLED"
    assert (await run(admin, "sleep", "60", timeoutSeconds=1))["status"] == "TIMED_OUT"


async def test_what_cannot_run_gets_its_true_reason(admin: Api, podman: Podman) -> None:
    host = await add_host(admin, podman)
    job = await run(admin, "/does/not/exist")
    assert (job["status"], job["attempt"]) == ("FAILED", 1)
    assert "failed to exec pid1: No such file or directory" in job["error"]
    job = await run(admin, "true", user="alice")
    assert (job["status"], job["attempt"]) == ("FAILED", 1)
    assert "unable to find user alice" in job["error"]
    job = await run(admin, "sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' a)", memoryLimitMb=16)
    assert (job["status"], job["exitCode"]) == ("FAILED", 137)
    assert "memory" in job["error"]
    assert (await admin(HOST, id=host["id"]))["health"]["error"] is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"network": "no-such-network"}, "no-such-network"),
        ({"mounts": {"/data": {"source": "/does/not/exist"}}}, "/does/not/exist: no such file or directory"),
    ],
)
async def test_what_the_host_lacks_is_the_hosts_fault(
    admin: Api, podman: Podman, config: dict, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_manager.domain.retry.LONGEST_BACK_OFF", timedelta(seconds=0.01))
    host = await add_host(admin, podman, **config)
    job = await run(admin, "true")
    assert job["status"] == "FAILED"
    assert why in job["error"]
    assert why in (await admin(HOST, id=host["id"]))["health"]["error"]


async def test_mounts_that_exist_are_there(admin: Api, podman: Podman) -> None:
    (podman.folder / "shared").mkdir(exist_ok=True)
    (podman.folder / "shared" / "file").write_text("told")
    await add_host(admin, podman, mounts={"/data": {"source": str(podman.folder / "shared")}})
    job = await run(admin, "cat", "/data/file")
    assert (job["status"], [edge["node"]["text"] for edge in job["logs"]["edges"]]) == ("SUCCEEDED", ["told"])


async def test_jobs_end_in_their_true_state_though_its_service_is_restarted(admin: Api, podman: Podman) -> None:
    await add_host(admin, podman, max_launches=3)
    jobs = {}
    for number in range(15):
        script = f"sleep 0.{random.randrange(10)}; exit {number % 3}"
        jobs[(await admin.submit(command=["sh", "-c", script], maxAttempts=1, memoryLimitMb=32))["id"]] = number % 3
    for due in (4, 8, 12):
        await eventually(lambda due=due: _has_ended(admin, due), 60)
        await asyncio.to_thread(podman.restart)
    for job_id, code in jobs.items():
        job = await ended(admin, job_id, 120)
        assert (job["status"], job["exitCode"]) == ("FAILED" if code else "SUCCEEDED", code), job
    # What could not be removed meanwhile is left to the reconciler.
    assert all(container["State"] != "running" for container in podman.containers())


async def _has_ended(api: Api, count: int) -> bool:
    jobs = await api("{ jobs(first: 50) { edges { node { status } } } }")
    return sum(edge["node"]["status"] in ENDED for edge in jobs["edges"]) >= count
