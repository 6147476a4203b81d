"""What operators see of a process from outside: metrics, traces, readiness."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.client import CREATE_HOST, SUBMIT, Api
from tests.eventually import eventually, eventually_sync
from tests.jobs import ended
from tests.processes import Served
from tests.server import serving

HOST = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 10}}
WAITS = {"image": "x", "memoryLimitMb": 9_999_999}


async def scrape(api: Api) -> dict[tuple[str, str], float]:
    """Values by name and by the values of all labels."""
    answer = await api.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name.removeprefix("container_manager_"), " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_count_what_happens_and_show_the_fleet(admin: Api) -> None:
    before = await scrape(admin)

    def more(now: dict[tuple[str, str], float], name: str, labels: str = "") -> float:
        return now.get((name, labels), 0) - before.get((name, labels), 0)

    await admin(CREATE_HOST, input={**HOST, "region": "eu", "maxConcurrentJobs": 7, "maxMemoryMb": 4096})
    jobs = [await admin.submit(command=[f"exit {code}"]) for code in (0, 0, 1)]
    waiting = await admin(SUBMIT, input=WAITS)
    for job in jobs:
        await ended(admin, job["id"])
    async with admin.subscribe("subscription { routingEvents { cursor } }"):
        await eventually(lambda: _has(admin, ("event_subscribers", ""), 1))
    now = await eventually(lambda: _has(admin, ("event_subscribers", ""), 0))
    assert waiting["status"] == "PENDING"
    assert more(now, "decisions_total", " simulated routed") == 3
    assert more(now, "decisions_total", "MEMORY  never") == 1
    assert more(now, "job_ends_total", "simulated succeeded") == 2
    assert more(now, "job_ends_total", "simulated failed") == 1
    assert more(now, "events_total", "simulated job_launched") == 3
    assert more(now, "commit_seconds_count") > 5
    assert more(now, "decision_seconds_count") >= 4
    assert more(now, "event_tail_lag_seconds_count") > 1
    assert now["queue_jobs", "MEMORY never"] == 1
    assert now["queue_oldest_seconds", "MEMORY never"] > 0
    assert now["active_jobs", ""] == 0
    assert now["host_healthy", "simulated sim eu"] == now["host_usable", "simulated sim eu"] == 1
    assert now["host_slots", "simulated sim eu"] == 7
    assert now["host_memory_bytes", "simulated sim eu"] == 4096 * 2**20
    assert ("host_cpu_cores", "simulated sim eu") not in now, "it is unlimited"


async def _has(api: Api, what: tuple[str, str], value: float) -> dict[tuple[str, str], float] | None:
    found = await scrape(api)
    return found if found[what] == value else None


async def test_metrics_need_a_token_and_no_known_host_name(url: str, admin: Api) -> None:
    async with httpx.AsyncClient(base_url=url) as stranger:
        refused = await stranger.get("/metrics")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    by_address = await admin.http.get("/metrics", headers={"Host": "10.1.2.3:8000"})
    assert by_address.status_code == 200


async def test_metrics_without_a_token_are_not_for_a_page_that_rebinds_its_name(transactional_db: None) -> None:
    from graphql_api.application import make_application

    async with (
        serving(make_application(no_auth=True, runs_jobs=False)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/metrics", headers={"Host": "evil.example"})).status_code == 400
        assert (await client.get("/livez", headers={"Host": "10.1.2.3"})).status_code == 200


class Collector(ThreadingHTTPServer):
    """Takes traces as OpenTelemetry's collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.take(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quietly."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_trace_leads_from_the_request_to_the_end_of_its_job(collector: Collector, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    with Served(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, CONTAINER_MANAGER_LOG_LEVEL="warning") as served:
        served.query(served.token, CREATE_HOST, input=HOST)
        trace = "0af7651916cd43dd8448eb211c80319c"
        headers = {"Authorization": f"Bearer {served.token}", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        query = SUBMIT.replace("mutation(", "mutation Submit(", 1)
        body = {"query": query, "operationName": "Submit", "variables": {"input": {"image": "x", "command": ["true"]}}}
        httpx.post(f"{served.url}/graphql", json=body, headers=headers).raise_for_status()
        done = "{ jobs(filters: {status: [SUCCEEDED]}) { edges { node { id } } } }"
        eventually_sync(lambda: served.query(served.token, done)["edges"])
        assert served.terminate() == 0
    request, run = collector.named("graphql Submit"), collector.named("run job")
    assert request.trace_id.hex() == run.trace_id.hex() == trace
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    for name, parent in (("commit submit", request), ("launch", run), ("watch", run), ("conclude", run)):
        assert any(s.name == name and s.parent_span_id == parent.span_id for s in collector.spans), name
    assert {a.key for a in run.attributes} >= {"job.id", "job.attempt", "executor.type", "host"}
    assert collector.services == {"container-manager"}


def test_a_collector_that_does_not_answer_holds_up_no_stop(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Served(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as served:
            served.query(served.token, "query Named { eventCursor }")
            assert served.terminate(timeout=6) == 0
