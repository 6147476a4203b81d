"""Verdicts on engines in trouble: what is refused, hangs, is upgraded or renewed meanwhile."""

import asyncio
import re
from collections.abc import Callable

import pytest
from aiohttp import web

from tests.api import UPDATE_HOST
from tests.client import CREATE_HOST, Api
from tests.engine_proxy import Proxy, proxied, refuse
from tests.engines import Engine
from tests.eventually import eventually
from tests.jobs import CANCEL, ended, running

ATTEMPTS = "query($id: ID!) { job(id: $id) { attempts { attempt status exitCode error } } }"
HOST = "query($id: ID!) { host(id: $id) { health { status error } } }"
MESSAGE = "query($id: ID!) { job(id: $id) { status message } }"


async def add_host(api: Api, url: str, name: str = "proxied", **input: object) -> dict:
    values = {"name": name, "executorType": "DOCKER", "config": {"url": url, **input.pop("config", {})}}
    host = await api(CREATE_HOST, input={**values, **input})
    assert host["health"]["status"] == "HEALTHY", host
    return host


def answers(path: str, answer: Callable[[], web.StreamResponse]) -> Callable[[web.Request], web.StreamResponse | None]:
    """A rule: these requests get this answer."""
    return lambda request: answer() if re.search(path, f"{request.method} {request.path}") else None


async def silence() -> web.StreamResponse:
    await asyncio.sleep(600)
    raise AssertionError("no client waits so long")


EVENTS = r"GET /(v[\d.]+/)?events"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: refuse(403),
        lambda: refuse(500),
        lambda: web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html"),
        lambda: web.json_response({"no": "message"}, status=500),
        lambda: web.Response(text=""),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(text='{"Type": "container"}\n'),
    ],
    ids=["403", "500", "html", "no-message", "empty", "no-events", "strange-events"],
)
async def test_an_engine_that_does_not_tell_its_events_holds_up_no_end(
    admin: Api, engine: Engine, answer: Callable[[], web.StreamResponse]
) -> None:
    async with proxied(engine, answers(EVENTS, answer)) as proxy:
        await add_host(admin, proxy.url, maxConcurrentJobs=1)
        for code in (3, 0):
            job = await ended(
                admin, (await admin.submit(command=["sh", "-c", f"exit {code}"], timeoutSeconds=30))["id"]
            )
            assert (job["exitCode"], job["attempt"]) == (code, 1), job
            assert job["status"] == ("FAILED" if code else "SUCCEEDED")


async def test_an_engine_that_never_answers_about_its_events_holds_up_no_end(admin: Api, engine: Engine) -> None:
    async def rule(request: web.Request) -> web.StreamResponse | None:
        return await silence() if "/events" in request.path else None

    async with proxied(engine, rule) as proxy:
        await add_host(admin, proxy.url)
        job = await ended(admin, (await admin.submit(command=["sh", "-c", "exit 3"]))["id"], 60)
        assert (job["status"], job["exitCode"], job["attempt"]) == ("FAILED", 3, 1)


async def test_what_cannot_be_stopped_says_so(admin: Api, engine: Engine) -> None:
    async with proxied(engine) as proxy:
        await add_host(admin, proxy.url)
        job = await running(admin, (await admin.submit(command=["sleep", "4"], timeoutSeconds=1))["id"])
        proxy.rule = answers(r"POST .*/(stop|kill)", lambda: refuse(403))
        await eventually(lambda: _says(admin, job["id"], "host proxied: denied by the proxy"), 30)
        job = await ended(admin, job["id"], 30)
        assert (job["status"], job["exitCode"]) == ("TIMED_OUT", 0)
        assert (await admin(MESSAGE, id=job["id"]))["message"] == ""


async def _says(api: Api, job_id: str, text: str) -> bool:
    return text in (await api(MESSAGE, id=job_id))["message"]


# ------------------------------------------------------------------ what was learned once


async def test_an_engine_that_is_upgraded_is_spoken_to_in_its_new_version(admin: Api, engine: Engine) -> None:
    async with proxied(engine) as proxy:
        await add_host(admin, proxy.url)
        job = await running(admin, (await admin.submit(command=["sleep", "2"]))["id"])
        upgrade(proxy, "1.41", "1.52", "client version 1.41 is too old. Minimum supported API version is 1.44, please "
                "upgrade your client to a newer version")  # fmt: skip
        later = await ended(admin, (await admin.submit(command=["true"]))["id"])
        assert (later["status"], later["attempt"]) == ("SUCCEEDED", 1)
        assert (await ended(admin, job["id"]))["status"] == "SUCCEEDED"
        upgrade(proxy, "1.52", "1.40", "client version 1.52 is too new. Maximum supported API version is 1.40")
        later = await ended(admin, (await admin.submit(command=["true"]))["id"])
        assert (later["status"], later["attempt"]) == ("SUCCEEDED", 1)


def upgrade(proxy: Proxy, old: str, new: str, complaint: str) -> None:
    proxy.rule = answers(rf" /v{re.escape(old)}/", lambda: refuse(400, complaint))
    proxy.rewrite = lambda path: path.replace(f"/v{new}/", "/v1.41/")
    proxy.headers = {"Api-Version": new}
    proxy.drop()


async def test_a_refusal_of_the_connection_is_not_the_jobs_mistake(admin: Api, engine: Engine) -> None:
    async with proxied(engine) as proxy:
        limits = {"maxMemoryMb": 1000, "maxCpuCores": 2}
        await add_host(admin, proxy.url, routingWeight=1000, **limits)
        await add_host(admin, engine.url, "good", routingWeight=0, **limits)
        for answer in (
            lambda: web.Response(status=400, text="Client sent an HTTP request to an HTTPS server.\n"),
            lambda: web.Response(status=400, text="<html>400 Bad Request</html>", content_type="text/html"),
        ):
            proxy.rule = answers("POST .*/containers/create", answer)
            job = await ended(admin, (await admin.submit(command=["true"]))["id"])
            assert (job["status"], job["attempt"], job["host"]["name"]) == ("SUCCEEDED", 2, "good"), job


# ------------------------------------------------------------------ launching


async def test_pulls_that_hang_hold_up_no_other_launch(admin: Api, engine: Engine) -> None:
    async def rule(request: web.Request) -> web.StreamResponse | None:
        return await silence() if "/images/create" in request.path else None

    async with proxied(engine, rule) as proxy:
        await add_host(admin, proxy.url, maxConcurrentJobs=30, maxCpuCores=100)
        hanging = [(await admin.submit(image=f"registry:1/app:{n}", command=["true"]))["id"] for n in range(5)]
        jobs = [(await admin.submit(command=["true"], memoryLimitMb=16))["id"] for _ in range(20)]
        for job_id in jobs:
            assert (await ended(admin, job_id))["status"] == "SUCCEEDED"
        for job_id in hanging:
            assert await _says(admin, job_id, "Pulling image 'registry:1/app:")
            await admin(CANCEL, id=job_id)
            assert (await ended(admin, job_id))["status"] == "CANCELLED"


async def test_launches_go_by_priority_and_those_that_wait_say_so(admin: Api, engine: Engine) -> None:
    held = asyncio.Event()

    async def rule(request: web.Request) -> web.StreamResponse | None:
        if re.search(r"POST .*/containers/create", f"{request.method} {request.path}"):
            await held.wait()
        return None

    async with proxied(engine, rule) as proxy:
        await add_host(admin, proxy.url, config={"max_launches": 1}, maxConcurrentJobs=30, maxCpuCores=100)
        low = [(await admin.submit(command=["true"], memoryLimitMb=16))["id"] for _ in range(6)]
        await eventually(lambda: _says(admin, low[-1], "Waits for its turn: host proxied starts at most 1"), 30)
        high = (await admin.submit(command=["true"], memoryLimitMb=16, priority=1000))["id"]
        await eventually(lambda: _says(admin, high, "Waits for its turn"), 30)
        held.set()
        ends = [(await ended(admin, job_id))["startedAt"] for job_id in (*low, high)]
        assert sum(moment < ends[-1] for moment in ends) == 1, "only the one that was being launched"


async def test_pulls_go_by_priority_and_those_that_wait_say_so(admin: Api, engine: Engine) -> None:
    held, pulled = asyncio.Event(), list[str]()

    async def rule(request: web.Request) -> web.StreamResponse | None:
        if "/images/create" not in request.path:
            return None
        pulled.append(request.query["fromImage"])
        await held.wait()
        return refuse(404, f"manifest for {pulled[-1]} not found")

    async with proxied(engine, rule) as proxy:
        await add_host(admin, proxy.url, config={"max_pulls": 1}, maxConcurrentJobs=30, maxCpuCores=100)
        images = [f"registry:1/{name}" for name in ("first:1", "low:1", "lower:1", "high:1")]
        jobs = {}
        for image, priority in zip(images, (0, 0, -10, 1000), strict=True):
            jobs[image] = (await admin.submit(image=image, command=["true"], priority=priority))["id"]
            says = "Waits to pull image" if len(jobs) > 1 else "Pulling image"
            await eventually(lambda job=jobs[image], says=says: _says(admin, job, says), 30)
        held.set()
        for job in jobs.values():
            assert (await ended(admin, job))["status"] == "FAILED"
        first, low, lower, high = images
        assert pulled == [first, high, low, lower]


# ------------------------------------------------------------------ blame


async def test_a_job_goes_where_it_has_not_failed(admin: Api, engine: Engine) -> None:
    async with proxied(engine, answers("POST .*/containers/create", lambda: refuse(503, "out of order"))) as proxy:
        bad = await add_host(admin, proxy.url, "bad", routingWeight=1000, maxMemoryMb=1000, maxCpuCores=2)
        await add_host(admin, engine.url, "good", routingWeight=1, maxMemoryMb=1000, maxCpuCores=2)
        job = await ended(admin, (await admin.submit(command=["true"]))["id"])
        assert (job["status"], job["attempt"], job["host"]["name"]) == ("SUCCEEDED", 2, "good")
        assert "out of order" in (await admin(HOST, id=bad["id"]))["health"]["error"]
        proxy.rule = lambda _: None
        job = await ended(admin, (await admin.submit(command=["true"]))["id"])
        assert job["host"]["name"] == "bad"
        assert (await admin(HOST, id=bad["id"]))["health"]["error"] is None


PULL = "POST .*/images/create"
REFUSALS = {
    "login": 'Head "https://registry:1/v2/app/manifests/1": no basic auth credentials',
    "denied": "error parsing HTTP 403 response body: denied",
    "platform": "no matching manifest for linux/amd64 in the manifest list entries",
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_what_one_host_lacks_another_may_have(admin: Api, engine: Engine, why: str) -> None:
    limits = {"maxMemoryMb": 1000, "maxCpuCores": 2}
    async with proxied(engine, answers(PULL, lambda: refuse(500, REFUSALS[why]))) as proxy:
        bad = await add_host(admin, proxy.url, "bad", routingWeight=1000, **limits)
        image = "registry:1/app:1"
        job = await ended(admin, (await admin.submit(image=image, command=["true"]))["id"])
        assert (job["status"], job["attempt"]) == ("FAILED", 1), "no other host"
        assert "registry:1" in job["error"]
        error = (await admin(HOST, id=bad["id"]))["health"]["error"]
        assert error is None if why == "platform" else "bad" in error
        engine.tag(image)
        await add_host(admin, engine.url, "good", routingWeight=1, **limits)
        proxy.rule = answers(r"GET .*/images/", lambda: refuse(404, "No such image"))
        refusing = proxy.rule
        proxy.rule = lambda request: answers(PULL, lambda: refuse(500, REFUSALS[why]))(request) or refusing(request)
        for _ in range(6):
            job = await ended(admin, (await admin.submit(image=image, command=["true"]))["id"])
            assert (job["status"], job["attempt"], job["host"]["name"]) == ("SUCCEEDED", 2, "good")
        hosts = await admin("{ hosts { edges { node { name ejectedUntil } } } }")
        assert all(edge["node"]["ejectedUntil"] is None for edge in hosts["edges"])
        engine.untag(image)


async def test_an_image_that_must_not_be_pulled_is_looked_for_elsewhere(admin: Api, engine: Engine) -> None:
    limits = {"maxMemoryMb": 1000, "maxCpuCores": 2}
    async with proxied(engine, answers("GET .*/images/", lambda: refuse(404, "No such image"))) as proxy:
        await add_host(admin, proxy.url, "bad", routingWeight=1000, config={"pull": "never"}, **limits)
        await add_host(admin, engine.url, "good", routingWeight=1, config={"pull": "never"}, **limits)
        job = await ended(admin, (await admin.submit(command=["true"]))["id"])
        assert (job["status"], job["attempt"], job["host"]["name"]) == ("SUCCEEDED", 2, "good")
        first = (await admin(ATTEMPTS, id=job["id"]))["attempts"][0]
        assert "is not on host bad, whose config.pull is never" in first["error"]


async def test_a_pull_quota_that_is_used_up_cools_the_host_down(admin: Api, engine: Engine) -> None:
    limits = {"maxMemoryMb": 1000, "maxCpuCores": 2}
    refused = answers(PULL, lambda: refuse(429, "toomanyrequests: You have reached your pull rate limit."))
    async with proxied(engine, refused) as proxy:
        await add_host(admin, proxy.url, "bad", routingWeight=1000, **limits)
        job = await admin.submit(image="registry:1/app:1", command=["true"])
        rejections = await eventually(lambda: _waits_for(admin, job["id"]), 30)
        assert rejections == [{"code": "COOLDOWN", "hosts": 1}]
        await admin(CANCEL, id=job["id"])


async def _waits_for(api: Api, job_id: str) -> list[dict] | None:
    waiting = (await api.job(job_id))["waitingOn"]
    return waiting["rejections"] if waiting else None


# ------------------------------------------------------------------ slow, and the same engine twice


async def test_an_engine_whose_calls_take_long_is_healthy_nevertheless(admin: Api, engine: Engine) -> None:
    async def rule(_: web.Request) -> None:
        await asyncio.sleep(0.8)

    async with proxied(engine, rule) as proxy:
        host = await add_host(admin, proxy.url)
        await admin("mutation { checkHealth { name } }")
        assert (await admin(HOST, id=host["id"]))["health"] == {"status": "HEALTHY", "error": None}


@pytest.mark.parametrize("cores", [4, 63.5])
async def test_more_cores_than_the_engine_has_are_all_of_them(admin: Api, engine: Engine, cores: float) -> None:
    await add_host(admin, engine.url, maxCpuCores=64)
    job = await ended(admin, (await admin.submit(command=["true"], cpuLimit=cores, maxAttempts=3))["id"])
    assert (job["status"], job["attempt"]) == ("SUCCEEDED", 1)


async def test_two_hosts_may_share_an_engine_only_with_limits_of_their_own(admin: Api, engine: Engine) -> None:
    first = await add_host(admin, engine.url, "first", maxMemoryMb=500, maxCpuCores=1)
    async with proxied(engine) as proxy:
        second = await add_host(admin, proxy.url, "second", maxMemoryMb=500, maxCpuCores=1)
        for host in (first, second):
            change = {"id": host["id"], "input": {"maxMemoryMb": None}}
            refused = await admin(UPDATE_HOST, **change)
            assert refused["__typename"] == "Conflict", refused
            assert "this is the engine of host" in refused["message"]


async def test_one_engine_is_counted_once(admin: Api, engine: Engine) -> None:
    await add_host(admin, engine.url, "first")
    async with proxied(engine) as proxy:
        values = {"name": "again", "executorType": "DOCKER", "config": {"url": proxy.url}}
        refused = await admin(CREATE_HOST, input=values)
        assert refused["__typename"] == "Conflict"
        assert "this is the engine of host first" in refused["message"]
