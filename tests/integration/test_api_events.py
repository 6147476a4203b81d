"""Events through the API, over WebSocket and Server-Sent Events."""

import asyncio
import json
from collections.abc import Callable

import pytest

from tests.api import (
    event_kinds,
    host_mutation,
)
from tests.client import EVENTS, Api
from tests.eventually import eventually
from tests.jobs import has_status

BATCHES = """subscription($after: String, $filters: RoutingEventFilter, $every: Int) {
    routingEventBatches(after: $after, filters: $filters, everyMs: $every) { cursor kind job { name } } }"""


async def test_events_come_in_batches_each_once_and_not_too_often(admin: Api, simulated: Callable) -> None:
    await simulated(config={"accept": "any", "launch_ms": 0, "run_ms": 1}, max_concurrent_jobs=3)
    seen: list[dict] = []
    batches = finished = 0
    async with admin.subscribe(BATCHES, after="0", every=300) as values:
        began = asyncio.get_running_loop().time()
        for number in range(30):
            await admin.submit(name=str(number))
        while finished < 30:
            batch = await anext(values)
            assert batch, "an empty batch is never sent"
            batches, seen = batches + 1, [*seen, *batch]
            finished += sum(event["kind"] == "JOB_FINISHED" for event in batch)
        took = asyncio.get_running_loop().time() - began
    assert batches <= took / 0.3 + 2, "the first may come from the table"
    history = await admin(
        "{ routingEvents(first: 100) { edges { node { cursor kind job { name } } } pageInfo { endCursor } } }"
    )
    assert seen[: len(history["edges"])] == [edge["node"] for edge in history["edges"]]
    cursors = [int(event["cursor"]) for event in seen]
    assert cursors == sorted(set(cursors))
    filters = {"kinds": ["JOB_FINISHED"]}
    async with admin.subscribe(BATCHES, after=seen[9]["cursor"], filters=filters) as values:
        again = await anext(values)
    assert again == [event for event in seen[10:] if event["kind"] == "JOB_FINISHED"], "and from any cursor on"


@pytest.mark.parametrize("every", [19, 5001])
async def test_how_often_batches_come_is_bounded(admin: Api, every: int) -> None:
    async with admin.socket() as connection:
        payload = {"query": BATCHES, "variables": {"every": every}}
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        assert f"everyMs: {every} is not from 20 to 5000." in await connection.recv()


async def test_a_cursor_beyond_the_newest_event_is_named(admin: Api) -> None:
    async with admin.socket() as connection:
        payload = {"query": EVENTS, "variables": {"after": "999999"}}
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        assert "beyond the newest event" in await connection.recv()


async def test_a_subscription_resumes_where_it_stopped(admin: Api, sim: dict) -> None:
    start = await admin("{ eventCursor }")
    job = await admin.submit()
    await eventually(lambda: has_status(admin, job["id"], "SUCCEEDED"))
    expected = ["JOB_SUBMITTED", "JOB_ROUTED", "JOB_LAUNCHED", "JOB_STARTED", "JOB_FINISHED"]
    assert await event_kinds(admin, job["id"]) == expected
    seen, cursor = [], start
    for _ in range(5):
        async with admin.subscribe(EVENTS, after=cursor) as events:
            event = await anext(events)
        seen.append(event["kind"])
        cursor = event["cursor"]
    assert seen == expected


async def test_a_subscription_is_filtered(admin: Api, sim: dict) -> None:
    filters = {"kinds": ["JOB_FINISHED", "HOST_DRAINED"], "hostId": sim["id"], "executorType": "SIMULATED"}
    async with admin.subscribe(EVENTS, after="0", filters=filters) as events:
        job = await admin.submit()
        assert (await anext(events))["job"]["id"] == job["id"]
        await admin(host_mutation("drainHost"), id=sim["id"])
        event = await anext(events)
    assert (event["kind"], event["host"]["name"], event["job"]) == ("HOST_DRAINED", "sim", None)


async def test_events_stream_over_sse(admin: Api, sim: dict) -> None:
    await admin.submit()
    body = {"query": 'subscription { routingEvents(after: "0") { kind } }'}
    kinds = []
    async with admin.http.stream("POST", "/graphql", json=body, headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("data: {"):
                kinds.append(json.loads(line[6:])["data"]["routingEvents"]["kind"])
            if "JOB_FINISHED" in kinds:
                break
    assert kinds[:3] == ["HOST_CREATED", "JOB_SUBMITTED", "JOB_ROUTED"]


async def test_a_bad_cursor_ends_the_subscription_with_its_error(admin: Api) -> None:
    async with admin.socket() as connection:
        await connection.send(
            json.dumps({"id": "1", "type": "subscribe", "payload": {"query": EVENTS, "variables": {"after": "x"}}})
        )
        message = json.loads(await connection.recv())
    error = (message["payload"] if message["type"] == "error" else message["payload"]["errors"])[0]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


async def test_queries_run_over_the_socket_too(admin: Api) -> None:
    async with admin.subscribe("{ eventCursor }") as values:
        assert await anext(values) == "0"


async def test_requests_that_cannot_run_over_sse_are_the_clients_fault(admin: Api) -> None:
    sse = {"Accept": "text/event-stream"}
    mutation = "mutation { checkHealth { id } }"
    by_get = await admin.http.get("/graphql", params={"query": mutation}, headers=sse)
    unknown = await admin.http.post("/graphql", json={"query": "{ eventCursor }", "operationName": "x"}, headers=sse)
    for answer in (by_get, unknown):
        assert "BAD_USER_INPUT" in answer.text
        assert "INTERNAL" not in answer.text
    odd = await admin.http.post("/graphql", json={"query": "{ eventCursor }", "operationName": 5})
    assert odd.status_code == 400


async def test_a_cursor_that_no_event_has_had_is_refused_by_the_query_as_well(admin: Api, sim: dict) -> None:
    query = "query($after: String, $last: Int, $before: String) { routingEvents(after: $after, last: $last, before: $before) { edges { cursor } } }"
    newest = await admin("{ eventCursor }")
    assert (await admin(query, after=newest))["edges"] == []
    error = await admin.error(query, after=str(int(newest) + 1))
    assert error["message"] == f"after: {int(newest) + 1} is beyond the newest event; read eventCursor again."
    assert (await admin(query, last=1, before="999999"))["edges"] == [{"cursor": newest}]


async def test_a_host_has_its_events_newest_first(admin: Api, sim: dict) -> None:
    job = await admin.submit()
    await eventually(lambda: has_status(admin, job["id"], "SUCCEEDED"))
    query = "query($id: ID!, $after: String) { host(id: $id) { events(first: 2, after: $after) { edges { node { kind job { id } } } pageInfo { endCursor } } } }"
    page = (await admin(query, id=sim["id"]))["events"]
    assert [edge["node"] for edge in page["edges"]] == [
        {"kind": kind, "job": {"id": job["id"]}} for kind in ("JOB_FINISHED", "JOB_STARTED")
    ]
    page = (await admin(query, id=sim["id"], after=page["pageInfo"]["endCursor"]))["events"]
    assert [edge["node"]["kind"] for edge in page["edges"]] == ["JOB_LAUNCHED", "JOB_ROUTED"]
