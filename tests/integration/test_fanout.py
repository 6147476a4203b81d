"""Equal subscriptions: events are executed and encoded once, with the result that each would get alone."""

import asyncio
import json
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone
from strawberry.http.streaming import SSETransport

from container_manager.domain.kinds import EventKind, Role
from container_manager.models import ContainerJob, RoutingEvent
from container_manager.service import Service
from container_manager.store import events as event_store
from container_manager.store.transaction import Actor, Transaction
from graphql_api import fanout
from graphql_api.context import Context, Identity, Loader
from graphql_api.schema import schema
from tests.client import EVENTS, Api
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.server import serving

make_host = sync_to_async(ExecutorHostFactory)
make_job = sync_to_async(ContainerJobFactory)

DOCUMENTS = [
    "subscription { routingEvents(after: $after) { cursor kind at message id } }",
    "subscription { told: routingEvents(after: $after) { where: host { name labels } job { id ...J } __typename } } "
    "fragment J on ContainerJob { name status command host { name } }",
    "subscription { ...S } fragment S on Subscription { routingEvents(after: $after) { message hostName } }",
    "subscription { routingEventBatches(after: $after, everyMs: 20) { cursor job { name } host { capacity { runningJobs } } } }",
    "subscription { e: routingEventBatches(after: $after, filters: {kinds: [JOB_PROGRESS]}) { message @include(if: true) } }",
]


def tell(tx: Transaction, items: list[tuple[str, Any]]) -> list[None]:
    for message, job in items:
        tx.event(EventKind.JOB_PROGRESS, message, job=job, host=job.host if job else None)
    return [None] * len(items)


@pytest.fixture
async def served() -> Any:
    """A server that runs no jobs: its service, and a caller."""
    from graphql_api.application import make_application
    from tests.server import make_token

    services: asyncio.Queue[Service] = asyncio.Queue()
    async with serving(make_application(runs_jobs=False, populate=services.put)) as url:
        api = Api(url, await make_token(Role.VIEWER))
        yield await services.get(), api
        await api.http.aclose()


@pytest.fixture
def executions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was executed for subscribers."""
    seen: list[object] = []
    execute = fanout.Rendering.execute

    async def counted(self: fanout.Rendering, operation: fanout.Operation, value: object) -> Any:
        seen.append(value)
        return await execute(self, operation, value)

    monkeypatch.setattr(fanout.Rendering, "execute", counted)
    return seen


async def some_events(service: Service) -> list[str]:
    job = await make_job(host=await make_host(labels={"a": "b"}), status="running", name="j", command=["x"])
    for message in ("one", 'two\n"three" é'):
        await service.process.writer.write(tell, (message, job))
    await service.process.writer.write(tell, ("none", None))
    return [str(event.id) for event in await sync_to_async(event_store.page)(0, 100)]


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_shared_messages_are_those_that_graphql_itself_would_send(served: Any, document: str) -> None:
    service, api = served
    cursors = await some_events(service)
    document = document.replace("$after", '"0"')
    context = Context(service, "", Identity(Actor("x"), Role.VIEWER))
    expected: list[Any] = []
    async with aclosing(await schema.subscribe(document, context_value=context)) as results:
        async for result in results:
            assert result.errors is None
            (value,) = result.data.values()
            expected.append(value)
            if sum(len(v) if isinstance(v, list) else 1 for v in expected) == len(cursors):
                break
    async with api.subscribe(document) as values:
        assert [await anext(values) for _ in expected] == expected


async def test_an_event_is_executed_once_for_all_who_ask_the_same(served: Any, executions: list[object]) -> None:
    service, api = served
    await some_events(service)
    newest = str(await sync_to_async(event_store.newest)())
    kinds = {"kinds": ["JOB_PROGRESS"]}
    variables: list[dict[str, Any]] = [
        {},
        {},
        {"after": newest},
        {"filters": kinds},
        {"after": newest, "filters": kinds},
    ]
    seen: list[str] = []

    async def follow(more: dict[str, Any]) -> None:
        async with api.subscribe(EVENTS, **more) as events:
            seen.append((await anext(events))["message"])

    followers = [asyncio.create_task(follow(more)) for more in variables]
    log = service.process.events
    await eventually(lambda: sum(len(a.subscribers) for a in log.audiences) == len(variables))
    executions.clear()
    await service.process.writer.write(tell, ("to all", None))
    await asyncio.gather(*followers)
    assert seen == ["to all"] * len(variables)
    assert len(executions) == 1


async def test_what_depends_on_other_variables_is_not_shared(served: Any) -> None:
    service, api = served
    document = """subscription($long: Boolean!, $after: String) { routingEvents(after: $after) {
        message cursor @include(if: $long) } }"""

    async def follow(long: bool) -> Any:
        async with api.subscribe(document, long=long, after="0") as events:
            return await anext(events)

    await some_events(service)
    short, long = await asyncio.gather(follow(False), follow(True))
    assert short == {"message": "one"}
    assert sorted(long) == ["cursor", "message"]


@pytest.mark.parametrize("field", ["routingEvents", "routingEventBatches"])
async def test_an_error_has_its_path_and_does_not_affect_other_events(
    served: Any, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, api = served
    await some_events(service)

    async def broken(info: object, pk: int | None) -> None:
        if pk is not None:
            raise RuntimeError("a bug")

    monkeypatch.setattr("graphql_api.types.events.job", broken)
    async with api.socket() as connection:
        query = f'subscription {{ it: {field}(after: "0") {{ message job {{ id }} }} }}'
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
        message = json.loads(await connection.recv())["payload"]
    value = message["data"]["it"]
    first = value[0] if isinstance(value, list) else value
    assert first == {"message": "one", "job": None}
    assert message["errors"][0]["path"] == (["it", 0, "job"] if isinstance(value, list) else ["it", "job"])
    assert message["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert "bug" not in str(message)


async def test_an_event_shows_the_present_state_of_its_job(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "FRESH_SECONDS", 0.01)
    service, api = served
    await some_events(service)
    query = 'subscription { routingEvents(after: "0") { job { status } } }'
    async with api.subscribe(query) as events:
        assert (await anext(events))["job"]["status"] == "RUNNING"
        await ContainerJob.objects.aupdate(status="succeeded")
        await asyncio.sleep(0.02)
        async with api.subscribe(query) as later:
            assert (await anext(later))["job"]["status"] == "SUCCEEDED"


async def test_errors_are_executed_once_for_all_too(
    served: Any, executions: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, api = served
    await some_events(service)

    async def broken(info: object, pk: int | None) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("graphql_api.types.events.job", broken)

    async def follow() -> Any:
        async with api.socket() as connection:
            query = 'subscription { routingEvents(after: "0") { job { id } } }'
            await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
            return json.loads(await connection.recv())["payload"]["errors"][0]["path"]

    assert await asyncio.gather(*(follow() for _ in range(10))) == [["routingEvents", "job"]] * 10
    assert len(executions) == 1 + 3, "all in one list, then each by itself"


async def test_many_events_are_executed_in_portions(served: Any, executions: list[Any]) -> None:
    service, api = served
    await asyncio.gather(*(service.process.writer.write(tell, (str(number), None)) for number in range(120)))
    # As many aliases as a document may have.
    fields = " ".join(f"f{number}: message" for number in range(99))
    async with api.subscribe(f'subscription {{ e: routingEventBatches(after: "0") {{ message {fields} }} }}') as values:
        seen = [event["f98"] for event in await anext(values)]
    assert seen == [str(number) for number in range(120)]
    assert [len(values) for values in executions] == [50, 50, 20]


@pytest.mark.parametrize("field", ["routingEvents", "routingEventBatches"])
async def test_what_each_event_costs_counts_as_often_as_there_may_be_events(served: Any, field: str) -> None:
    _, api = served
    hosts = " ".join(f"h{number}: host {{ id name labels region config }}" for number in range(90))
    async with api.socket() as connection:
        payload = {"query": f"subscription {{ {field} {{ cursor {hosts} }} }}"}
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        message = json.loads(await connection.recv())
    assert message["type"] == "error"
    assert "cost is" in message["payload"][0]["message"]


async def test_a_caller_that_leaves_before_its_batch_starts_blocks_no_other() -> None:
    async def load(keys: list[int]) -> list[int]:
        return keys

    loader = Loader(load)
    leaving = asyncio.ensure_future(loader.load(1))
    leaving.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert await asyncio.wait_for(loader.load(2), 5) == 2


async def test_a_subscription_may_read_records_as_long_as_it_lasts(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, api = served
    monkeypatch.setattr("graphql_api.operation.MOST_RECORDS", 5)
    job = await make_job(host=await make_host(), status="running")
    async with api.subscribe(
        'subscription { routingEvents(after: "0") { message job { attempts { attempt } } } }'
    ) as values:
        for number in range(10):
            await service.process.writer.write(tell, (str(number), job))
            told = await anext(values)
            assert (told["message"], len(told["job"]["attempts"])) == (str(number), 1)


async def test_a_cursor_that_is_too_old_is_named_with_the_oldest_one(served: Any) -> None:
    service, api = served
    cursors = await some_events(service)
    await RoutingEvent.objects.aupdate(at=timezone.now() - timedelta(days=2))
    await service.process.writer.write(event_store.delete_old, timedelta(days=1))
    query = "query($after: String) { routingEvents(after: $after) { edges { node { cursor } } } }"
    error = await api.error(query, after="0")
    assert error["extensions"] == {"code": "CURSOR_EXPIRED", "oldest": cursors[-2]}
    assert (await api(query))["edges"] == [{"node": {"cursor": cursors[-1]}}]
    subscribe = EVENTS.replace("$after: String, ", "").replace("after: $after", 'after: "0"')
    body = {"query": subscribe}
    answer = await api.http.post("/graphql", json=body, headers={"Accept": "text/event-stream"})
    assert f'"CURSOR_EXPIRED","oldest":"{cursors[-2]}"' in answer.text
    async with api.subscribe(EVENTS, after=cursors[-2]) as events:
        assert (await anext(events))["cursor"] == cursors[-1]


async def test_a_process_that_is_about_to_stop_or_reads_no_events_is_not_ready(served: Any) -> None:
    service, api = served
    assert (await api.http.get("/readyz")).json() == {"ready": True, "failing": []}
    service.process.events.patience = -1
    answer = await api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failing"] == ["The event log loop has not ticked lately."]
    await service.process.drain(0)
    assert "The service is stopping." in (await api.http.get("/readyz")).json()["failing"]


async def test_a_quiet_stream_says_that_it_is_alive(monkeypatch: pytest.MonkeyPatch, served: Any) -> None:
    _, api = served
    monkeypatch.setattr(SSETransport.__init__, "__defaults__", (0.05,))
    body = {"query": "subscription { routingEvents { cursor } }"}
    async with api.http.stream("POST", "/graphql", json=body, headers={"Accept": "text/event-stream"}) as stream:
        text = stream.aiter_text()
        assert [await anext(text), await anext(text)] == [": ping\n\n"] * 2
