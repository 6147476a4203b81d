"""Lists, pages, filters and nodes of the API."""

from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.db.backends.utils import CursorWrapper

from container_manager.models import ExecutorHost
from graphql_api import documents
from graphql_api.ids import to_global
from tests.api import (
    SUBMIT_MANY,
    make_hosts,
    make_job,
)
from tests.client import Api
from tests.factories import ContainerJobFactory

make_jobs = sync_to_async(ContainerJobFactory.create_batch)


async def test_jobs_page_both_ways(admin: Api) -> None:
    await make_jobs(7)
    page = (
        "{ jobs(%s) { edges { cursor node { name } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"
    )
    names = lambda found: [edge["node"]["name"] for edge in found["edges"]]  # noqa: E731
    everything = names(await admin(page % "first: 100"))
    assert len(everything) == 7
    first = await admin(page % "first: 3")
    assert (names(first), first["pageInfo"]["hasNextPage"]) == (everything[:3], True)
    second = await admin(page % f'first: 3, after: "{first["pageInfo"]["endCursor"]}"')
    assert (names(second), second["pageInfo"]["hasPreviousPage"]) == (everything[3:6], True)
    back = await admin(page % f'last: 2, before: "{second["pageInfo"]["endCursor"]}"')
    assert (names(back), back["pageInfo"]["hasNextPage"]) == (everything[3:5], True)
    assert names(await admin(page % "last: 2")) == everything[5:]


async def test_jobs_are_filtered(admin: Api) -> None:
    host = (await make_hosts(1))[0]
    await make_job(name="a", labels={"team": "x", "odd key.": "1"}, status="succeeded")
    await make_job(name="b", labels={"team": "y"}, status="running", host=host, executor_type="simulated")
    query = "query($filters: JobFilter) { jobs(filters: $filters) { edges { node { name } } } }"

    async def names(**filters: object) -> list[str]:
        return [edge["node"]["name"] for edge in (await admin(query, filters=filters))["edges"]]

    assert await names(status=["SUCCEEDED", "FAILED"]) == ["a"]
    assert await names(labels={"team": "y"}) == ["b"]
    assert await names(labels={"odd key.": "1", "team": "x"}) == ["a"]
    assert await names(hostId=to_global("ExecutorHost", host.pk)) == ["b"]
    assert await names(executorType="SIMULATED") == ["b"]
    assert await names(name="a") == ["a"]
    assert await names(submittedBefore="2000-01-01T00:00:00Z") == []
    assert await names(submittedAfter="2000-01-01T00:00:00Z") == ["b", "a"]
    assert await names(name="a", OR={"name": "b"}) == ["b", "a"]


async def test_hosts_are_filtered_and_paged(admin: Api) -> None:
    await make_hosts(3, region="eu")
    await make_hosts(1, region="us", health_status="unhealthy", is_active=False, name="sick")
    query = "query($filters: HostFilter, $first: Int, $after: String) { hosts(filters: $filters, first: $first, after: $after) { edges { node { name } } pageInfo { hasNextPage endCursor } } }"
    assert [e["node"]["name"] for e in (await admin(query, filters={"health": "UNHEALTHY"}))["edges"]] == ["sick"]
    assert (
        len((await admin(query, filters={"region": "eu", "isActive": True, "executorType": "SIMULATED"}))["edges"]) == 3
    )
    page = await admin(query, first=3)
    assert page["pageInfo"]["hasNextPage"]
    rest = await admin(query, first=3, after=page["pageInfo"]["endCursor"])
    assert [e["node"]["name"] for e in rest["edges"]] == ["sick"]


async def test_decisions_and_their_hosts_page(admin: Api) -> None:
    await make_hosts(5, max_concurrent_jobs=1)
    await admin(SUBMIT_MANY, inputs=[{"image": "x", "memoryLimitMb": 64} for _ in range(3)])
    query = "query($after: String) { routingDecisions(first: 2, after: $after) { edges { node { id reason } } pageInfo { hasNextPage endCursor } } }"
    page = await admin(query)
    assert page["pageInfo"]["hasNextPage"]
    rest = await admin(query, after=page["pageInfo"]["endCursor"])
    assert len(page["edges"]) + len(rest["edges"]) == 3
    hosts = "query($id: ID!, $after: String) { node(id: $id) { ... on RoutingDecision { hosts(first: 3, after: $after) { edges { node { hostName chosen verdict weight } } pageInfo { hasNextPage endCursor } } } } }"
    decision = page["edges"][0]["node"]["id"]
    one = (await admin(hosts, id=decision))["hosts"]
    two = (await admin(hosts, id=decision, after=one["pageInfo"]["endCursor"]))["hosts"]
    assert [edge["node"]["chosen"] for edge in one["edges"]] == [True, False, False]
    assert len({edge["node"]["hostName"] for edge in one["edges"] + two["edges"]}) == 5
    by_host = await admin(
        "query($id: ID) { routingDecisions(hostId: $id) { edges { node { host { id } } } } }",
        id=to_global("ExecutorHost", (await ExecutorHost.objects.aget(name=one["edges"][0]["node"]["hostName"])).pk),
    )
    assert len(by_host["edges"]) == 1


async def test_nested_lists_cost_a_constant_number_of_queries(admin: Api) -> None:
    for host in await make_hosts(10, is_draining=True):
        await make_jobs(2, host=host, status="succeeded")
    query = """query($first: Int) { jobs(first: $first) { edges { node { name
        host { name capacity { runningJobs } } decisions { reason job { name } host { name } } } } } }"""

    async def queries(first: int) -> int:
        statements: list[str] = []
        execute = CursorWrapper.execute

        def count(self, sql, params=None):
            statements.append(sql)
            return execute(self, sql, params)

        with patch.object(CursorWrapper, "execute", count):
            found = await admin(query, first=first)
        assert len(found["edges"]) == first
        # The fleet view reads jobs by statements of its own, when it is first used.
        return len([sql for sql in statements if 'FROM "container_manager_containerjob"' in sql])

    # The least of three, because the control loops read jobs now and then.
    few = [await queries(2) for _ in range(3)]
    many = [await queries(20) for _ in range(3)]
    assert min(few) == min(many)


async def test_nodes_of_all_types_are_found_by_id(admin: Api, sim: dict) -> None:
    job = await admin.submit()
    event = (await admin("{ routingEvents(first: 1) { edges { node { id } } } }"))["edges"][0]["node"]
    decision = (await admin("{ routingDecisions(first: 1) { edges { node { id } } } }"))["edges"][0]["node"]
    query = "query($id: ID!) { node(id: $id) { id __typename } }"
    for kind, node in {
        "ExecutorHost": sim, "ContainerJob": job, "RoutingEvent": event, "RoutingDecision": decision,
    }.items():  # fmt: skip
        assert await admin(query, id=node["id"]) == {"id": node["id"], "__typename": kind}
        assert await admin(query, id=to_global(kind, 4711)) is None


@pytest.mark.parametrize(
    "filters",
    [
        {"submittedAfter": "0001-01-01T00:00:00+23:00"},
        {"submittedBefore": "9999-12-31T23:59:59-23:00"},
        {"labels": {str(n): "x" for n in range(3000)}},
    ],
)
async def test_filters_beyond_reason_are_named(admin: Api, filters: dict) -> None:
    query = "query($filters: JobFilter) { jobs(filters: $filters) { edges { cursor } } }"
    error = await admin.error(query, filters=filters)
    assert next(iter(filters)) in error["message"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("fields", [1, 80])
async def test_a_document_does_not_wait_for_the_garbage_collector(admin: Api, fields: int) -> None:
    query = "{" + " ".join(f"field{n}: eventCursor" for n in range(fields)) + "}"
    await admin.post(query)
    document = documents.known(query)
    assert document is not None
    assert document.loc is not None
    assert document.loc.start_token.next is document.loc.end_token.prev is None
