"""The Python client against a real service, also one that is killed."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from container_manager.client import (
    AsyncClient,
    Client,
    Conflict,
    Forbidden,
    HostFilter,
    JobFailed,
    JobFilter,
    JobInput,
    NotFound,
    RequestFailed,
    RoutingEventFilter,
    Unauthenticated,
    Unreachable,
    ValidationFailed,
)
from tests.client import CREATE_HOST
from tests.eventually import eventually
from tests.postgres import free_port
from tests.processes import ROOT, Served, command

SIMULATED = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 1}}
MANY = {**SIMULATED, "maxConcurrentJobs": 50}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("client")) as served:
        served.query(served.token, CREATE_HOST, input=SIMULATED)
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.url, served.token) as client:
        yield client


async def test_a_job_from_its_submission_to_its_end(client: AsyncClient) -> None:
    job = await client.submit(
        "busybox",
        ["echo one; echo two; exit 0"],
        name="n",
        environment={"A": "b"},
        labels={"team": "x"},
        memory_limit_mb=64,
    )
    async with aclosing(job.logs()) as lines:
        written = [(line.stream, line.text) async for line in lines]
    assert written == [("STDOUT", "one"), ("STDOUT", "two")]
    ended = await job.result()
    assert (ended.status, ended.exit_code, job.has_ended, job.status) == ("SUCCEEDED", 0, True, "SUCCEEDED")
    details = await job.details()
    assert (details.environment_names, details.memory_limit_mb, details.attempts[0].host_name) == (["A"], 64, "sim")
    explained = await job.explain()
    assert explained.decisions[0].hosts.edges[0].node.chosen
    assert (await job.why_not("sim")).verdict == "FEASIBLE"
    assert (await client.job(job.id)).data.name == "n"
    assert [one.id async for one in client.jobs(JobFilter(labels={"team": "x"}))] == [job.id]
    with pytest.raises(Conflict):
        await job.cancel()


async def test_a_job_that_fails_is_an_error_and_can_run_again(client: AsyncClient) -> None:
    job = await client.submit("busybox", ["exit 3"])
    with pytest.raises(JobFailed, match="FAILED with exit code 3") as failed:
        await job.result()
    assert failed.value.job.exit_code == 3
    await job.retry()
    assert (await job.result(check=False)).attempt == 2
    endless = await client.submit("busybox", ["sleep 60"])
    await endless.cancel()
    assert (await endless.result(check=False)).status == "CANCELLED"


async def test_many_jobs_in_one_request(client: AsyncClient) -> None:
    good, bad = await client.submit_all([JobInput(image="busybox", command=["exit 0"]), JobInput(image="A B")])
    assert isinstance(bad, ValidationFailed)
    assert bad.fields[0].field == "inputs.1.image"
    assert (await good.result()).status == "SUCCEEDED"


async def test_what_is_refused_is_an_error_with_a_type(client: AsyncClient, served: Served) -> None:
    with pytest.raises(ValidationFailed) as invalid:
        await client.submit("A B")
    assert invalid.value.fields[0].field == "image"
    with pytest.raises(TypeError, match="memory_limit: there is no such field; did you mean memory_limit_mb"):
        await client.submit("busybox", memory_limit=3)  # type: ignore[call-arg]
    with pytest.raises(NotFound):
        await client.host("nowhere")
    await client.submit("busybox", idempotency_key="once")
    with pytest.raises(Conflict):
        await client.submit("busybox", ["other"], idempotency_key="once")
    with pytest.raises(RequestFailed) as failed:
        await client.execute("{ nothing }")
    assert failed.value.code == "GRAPHQL_VALIDATION_FAILED"
    with pytest.raises(RequestFailed):
        async with aclosing(client.events("999999999")) as events:
            await anext(events)
    async with AsyncClient(served.url, "wrong") as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.submit("busybox")
        with pytest.raises(Unauthenticated):
            async with aclosing(stranger.events("0")) as events:
                await anext(events)
    secret = command(served.stderr.parent, "token", "create", "--name", "reader", "--role", "viewer").stdout.strip()
    async with AsyncClient(served.url, secret) as viewer:
        assert [host.name async for host in viewer.hosts(HostFilter(name_contains="si"))] == ["sim"]
        with pytest.raises(Forbidden):
            await viewer.submit("busybox")


async def test_a_service_that_is_not_there_is_unreachable(served: Served) -> None:
    async with AsyncClient("http://127.0.0.1:9", patience=0) as nobody:
        with pytest.raises(Unreachable, match="does not answer"):
            await nobody.host("x")
    async with AsyncClient(f"{served.url}/elsewhere", served.token, patience=0) as lost:
        with pytest.raises(RequestFailed, match="is it the right address"):
            await lost.host("x")
    async with AsyncClient("localhost:8000") as nowhere:
        with pytest.raises(RequestFailed, match="must begin with http"):
            await nowhere.host("x")


class _LosesAnswers(httpx.AsyncHTTPTransport):
    """The first answers are lost on their way back."""

    left = 2

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if self.left:
            self.left -= 1
            await response.aclose()
            raise httpx.ReadError("the connection was lost")
        return response


async def test_a_submission_whose_answer_is_lost_is_one_job(served: Served) -> None:
    async with httpx.AsyncClient(transport=_LosesAnswers()) as http:
        async with AsyncClient(served.url, served.token, http=http) as client:
            job = await client.submit("busybox", ["exit 0"], name="lost-and-found")
            assert [one.id async for one in client.jobs(JobFilter(name="lost-and-found"))] == [job.id]
    async with httpx.AsyncClient(transport=_LosesAnswers()) as http:
        async with AsyncClient(served.url, served.token, http=http) as client:
            # The service may have done it, so it is not sent again.
            with pytest.raises(Unreachable):
                await client.api.cancel_job(job.id)


async def test_each_event_comes_once_and_in_order_while_the_service_is_killed_ten_times(tmp_path: Path) -> None:
    serve = ("serve", "--port", str(free_port()))
    served = Served(tmp_path, *serve)
    kinds = RoutingEventFilter()
    seen: list[str] = []
    try:
        served.query(served.token, CREATE_HOST, input=MANY)
        async with AsyncClient(served.url, served.token) as client:

            async def watch() -> None:
                async for event in client.events("0", kinds):
                    seen.append(event.cursor)

            async def load() -> None:
                for _ in range(220):
                    await client.submit("busybox", ["exit 0"])

            watching, loading = asyncio.create_task(watch()), asyncio.create_task(load())
            for kill in range(10):
                await eventually(lambda kill=kill: len(seen) > 90 * (kill + 1), 30)
                served.kill()
                served = await asyncio.to_thread(Served, tmp_path, *serve)
            await asyncio.wait_for(loading, 60)
            stored: list[str] = []

            async def has_all() -> bool:
                page = (await client.api.queue()).queue
                return page.pending + page.active == 0

            await eventually(has_all, 60)
            after = "0"
            while edges := (await client.api.events_after(after, 100, None)).routing_events.edges:
                stored += [edge.node.cursor for edge in edges]
                after = stored[-1]
            await eventually(lambda: len(seen) >= len(stored), 30)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            submitted = {job.id async for job in client.jobs()}
        assert len(stored) > 1000
        assert seen == stored
        assert len(submitted) == 220
    finally:
        served.kill()


class _Silent(httpx.AsyncHTTPTransport):
    """The connection of each stream is lost after a while, in which nothing came but signs of life."""

    lost = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "event-stream" not in request.headers["accept"] or self.lost == 2:
            return await super().handle_async_request(request)
        self.lost += 1

        async def alive() -> AsyncIterator[bytes]:
            for _ in range(6):
                yield b":\n\n"
                await asyncio.sleep(0.1)
            raise httpx.ReadError("gone")

        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=alive())


async def test_the_patience_begins_when_the_service_goes_away(served: Served) -> None:
    async with httpx.AsyncClient(transport=_Silent()) as http:
        async with AsyncClient(served.url, served.token, http=http, patience=0.4) as client:
            job = await client.submit("busybox", ["exit 0"])
            async with aclosing(job.events("0")) as events:
                assert (await anext(events)).kind == "JOB_SUBMITTED"


def test_a_blocking_client_is_shared_by_threads(served: Served) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Client(served.url, served.token) as client, ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda _: client.host("sim").name, range(16)))
    assert names == ["sim"] * 16


def test_code_without_an_event_loop_has_the_same_verbs(served: Served) -> None:
    with Client(served.url, served.token) as client:
        job = client.submit("busybox", ["echo hello; exit 0"], name="blocking")
        assert [line.text for line in job.logs()] == ["hello"]
        assert job.result().status == "SUCCEEDED"
        assert (job.has_ended, job.status, job.data.name, job.details().image) == (
            True,
            "SUCCEEDED",
            "blocking",
            "busybox",
        )
        assert repr(job) == "<Job blocking SUCCEEDED>"
        assert job.refresh().explain().decisions[0].host.name == "sim"
        assert job.why_not("sim").host_name == "sim"
        assert client.job(job.id).id == next(client.jobs(JobFilter(name="blocking"))).id == job.id
        assert client.host("sim").name == next(client.hosts()).name == "sim"
        (again,) = client.submit_all([JobInput(image="busybox", command=["exit 1"])])
        with pytest.raises(JobFailed):
            again.result()
        again.retry()
        assert next(client.submit("busybox", ["sleep 60"]).cancel().events("0")).kind == "JOB_SUBMITTED"
        events = client.events("0", RoutingEventFilter(kinds=["HOST_CREATED"]))
        assert next(events).host_name == "sim"
        assert client.call(lambda api: api.viewer()).viewer.name == "admin"
        assert client.execute("{ viewer { role } }") == {"viewer": {"role": "ADMIN"}}


def test_the_generated_part_is_that_of_the_schema(tmp_path: Path) -> None:
    target = tmp_path / "generated"
    made = subprocess.run([ROOT / "scripts/client", target], capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr
    kept = ROOT / "container_manager/client/generated"
    texts = [{path.name: path.read_text() for path in folder.glob("*.py")} for folder in (kept, target)]
    assert texts[0] == texts[1], "run scripts/client"
