"""The GraphQL API over a real server: what it answers, and what it says of bad input."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from unittest.mock import patch

import httpx
import pytest
import websockets
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from container_manager.domain.kinds import Role
from container_manager.models import ApiToken, AuditEntry, ContainerJob, ExecutorHost
from container_manager.store import tokens
from graphql_api.ids import to_global
from tests.client import CREATE_HOST, EVENTS, JOB_FIELDS, SUBMIT, USER_ERRORS, Api
from tests.eventually import eventually
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.server import make_token

make_job = sync_to_async(ContainerJobFactory)
make_jobs = sync_to_async(ContainerJobFactory.create_batch)
make_hosts = sync_to_async(ExecutorHostFactory.create_batch)

UPDATE_HOST = f"""mutation($id: ID!, $input: HostPatch!) {{ updateHost(id: $id, input: $input) {{
    __typename ... on ExecutorHost {{ id name config routingWeight isActive
        capacity {{ maxConcurrentJobs maxMemoryMb }} health {{ status }} }} {USER_ERRORS} }} }}"""
CANCEL = """mutation($id: ID!) { cancelJob(id: $id) {
    __typename ... on ContainerJob { status } ... on UserError { message } } }"""
ROUTE = """mutation($id: ID!) { routeJob(id: $id) {
    __typename ... on RoutingDecision { reason host { name } job { id status } }
    ... on RoutingRefused { verdict rejections { code hosts } } ... on UserError { message } } }"""
SUBMIT_MANY = f"""mutation($inputs: [JobInput!]!) {{ submitJobs(inputs: $inputs) {{
    __typename ... on ContainerJob {{ {JOB_FIELDS} }} {USER_ERRORS} }} }}"""

SIMULATED = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 50}}


def host_mutation(name: str) -> str:
    fields = "name isActive isDraining health { status }"
    return f"mutation($id: ID!) {{ {name}(id: $id) {{ __typename ... on ExecutorHost {{ {fields} }} {USER_ERRORS} }} }}"


@pytest.fixture
async def sim(admin: Api) -> dict:
    return await admin(CREATE_HOST, input=SIMULATED)


# ------------------------------------------------------------------ hosts


async def test_a_host_is_probed_before_the_answer(admin: Api) -> None:
    created = await admin(
        CREATE_HOST, input={**SIMULATED, "region": "eu", "labels": {"disk": "ssd"}, "routingWeight": 7}
    )
    assert created["health"] == {"status": "HEALTHY", "error": None, "consecutiveFailures": 0}
    assert (created["region"], created["labels"], created["routingWeight"]) == ("eu", {"disk": "ssd"}, 7)
    sick = await admin(CREATE_HOST, input={"name": "sick", "executorType": "SIMULATED", "config": {"healthy": False}})
    assert sick["health"]["status"] == "UNHEALTHY"
    assert "config.healthy" in sick["health"]["error"]


async def test_a_host_on_another_node_stays_unknown_until_it_is_probed_there(admin: Api) -> None:
    config = {"url": "unix:///var/run/docker.sock", "node": "elsewhere"}
    host = await admin(CREATE_HOST, input={"name": "far", "executorType": "DOCKER", "config": config})
    assert host["health"]["status"] == "UNKNOWN"
    assert (await admin("mutation { checkHealth { health { status } } }"))[0]["health"]["status"] == "UNKNOWN"


async def test_a_host_can_be_changed(admin: Api, sim: dict) -> None:
    patch_ = {"name": "renamed", "routingWeight": 0, "maxMemoryMb": 4096, "isActive": False}
    changed = await admin(UPDATE_HOST, id=sim["id"], input=patch_)
    assert (changed["name"], changed["routingWeight"], changed["isActive"]) == ("renamed", 0, False)
    assert changed["capacity"]["maxMemoryMb"] == 4096
    changed = await admin(UPDATE_HOST, id=sim["id"], input={"maxMemoryMb": None, "config": {"healthy": False}})
    assert changed["capacity"]["maxMemoryMb"] is None
    assert changed["name"] == "renamed"
    assert changed["health"]["status"] == "UNHEALTHY"


async def test_secrets_never_come_back_and_survive_an_update(admin: Api) -> None:
    config = {"url": "tcp://127.0.0.1:1", "registry_auth": {"r.io": {"username": "me", "password": "swordfish"}}}
    host = await admin(CREATE_HOST, input={"name": "secretive", "executorType": "DOCKER", "config": config})
    assert host["config"]["registry_auth"] == {"r.io": {"username": "me", "password": "********"}}
    await admin(UPDATE_HOST, id=host["id"], input={"config": {**host["config"], "max_launches": 2}})
    stored = await ExecutorHost.objects.aget(name="secretive")
    assert stored.config["registry_auth"]["r.io"]["password"] == "swordfish"
    assert stored.config["max_launches"] == 2


async def test_values_are_encrypted_at_rest(admin: Api, sim: dict) -> None:
    await admin.submit(environment=[{"name": "KEY", "value": "swordfish"}])
    job = await ContainerJob.objects.aget()
    assert (job.environment, job.environment_names) == ({"KEY": "swordfish"}, ["KEY"])

    def raw() -> bytes:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SELECT environment FROM container_manager_containerjob")
            return bytes(cursor.fetchone()[0])

    assert b"swordfish" not in await sync_to_async(raw)()
    answer = await admin("query($id: ID!) { job(id: $id) { environmentNames } }", id=to_global("ContainerJob", job.pk))
    assert answer == {"environmentNames": ["KEY"]}


async def test_draining_and_resuming(admin: Api, sim: dict) -> None:
    assert (await admin(host_mutation("drainHost"), id=sim["id"]))["isDraining"]
    job = await admin.submit()
    assert (job["status"], job["waitingOn"]["rejections"]) == ("PENDING", [{"code": "DRAINING", "hosts": 1}])
    assert job["waitingOn"]["verdict"] == "NOT_NOW"
    assert not (await admin(host_mutation("resumeHost"), id=sim["id"]))["isDraining"]
    await eventually(lambda: has_status(admin, job["id"], "SUCCEEDED"))


async def test_a_host_with_jobs_is_not_deleted(admin: Api, sim: dict) -> None:
    job = await admin.submit(command=["sleep 30"])
    refused = await admin(host_mutation("deleteHost"), id=sim["id"])
    assert (refused["__typename"], "holds jobs (1)" in refused["message"]) == ("Conflict", True)
    await admin(CANCEL, id=job["id"])
    await eventually(lambda: has_status(admin, job["id"], "CANCELLED"))
    assert (await admin(host_mutation("deleteHost"), id=sim["id"]))["name"] == "sim"
    assert await admin('{ host(name: "sim") { name } }') is None
    # What was decided stays readable.
    query = "query($id: ID!) { job(id: $id) { host { id } decisions { replay hosts { edges { node { hostName host { id } } } } } } }"
    kept = await admin(query, id=job["id"])
    assert kept["host"] is None
    assert kept["decisions"][0]["replay"] == "SAME"
    assert kept["decisions"][0]["hosts"]["edges"] == [{"node": {"hostName": "sim", "host": None}}]


async def test_every_host_mutation_knows_what_is_not_there(admin: Api) -> None:
    nowhere = to_global("ExecutorHost", 4711)
    for name in ("drainHost", "resumeHost", "deleteHost"):
        assert (await admin(host_mutation(name), id=nowhere))["__typename"] == "NotFound"
    assert (await admin(UPDATE_HOST, id=nowhere, input={"routingWeight": 1}))["__typename"] == "NotFound"


async def test_capacity_is_by_type_and_region(admin: Api) -> None:
    await make_hosts(2, region="eu", max_concurrent_jobs=5, max_memory_mb=1000, config={"accept": "any"})
    await make_hosts(1, region="us", is_active=False)
    await make_job(host=await ExecutorHost.objects.filter(region="eu").afirst(), status="running", memory_limit=300)
    fields = "executorType region hosts availableHosts capacity { maxConcurrentJobs runningJobs availableSlots maxMemoryMb reservedMemoryMb }"
    eu, us = await admin(f"{{ capacity {{ {fields} }} }}")
    assert (eu["region"], eu["hosts"], eu["availableHosts"]) == ("eu", 2, 2)
    assert eu["capacity"] == {
        "maxConcurrentJobs": 10, "runningJobs": 1, "availableSlots": 9, "maxMemoryMb": 2000, "reservedMemoryMb": 300,
    }  # fmt: skip
    assert (us["hosts"], us["availableHosts"], us["capacity"]["maxMemoryMb"]) == (1, 0, None)
    assert len(await admin('{ capacity(region: "us", executorType: SIMULATED) { region } }')) == 1
    assert await admin("{ capacity(executorType: DOCKER) { region } }") == []


# ------------------------------------------------------------------ jobs


async def test_without_room_a_job_waits_and_says_why(admin: Api) -> None:
    job = await admin.submit(memoryLimitMb=64)
    assert job["status"] == "PENDING"
    assert "no host yet" in job["waitingOn"]["message"]
    await admin(CREATE_HOST, input={**SIMULATED, "maxMemoryMb": 100})
    await eventually(lambda: has_status(admin, job["id"], "SUCCEEDED"))
    large = await admin.submit(memoryLimitMb=200)
    assert large["waitingOn"]["verdict"] == "NEVER"
    assert large["waitingOn"]["rejections"] == [{"code": "MEMORY", "hosts": 1}]


async def test_waiting_jobs_start_when_room_appears(admin: Api) -> None:
    await admin(CREATE_HOST, input={**SIMULATED, "maxConcurrentJobs": 2})
    jobs = await admin(SUBMIT_MANY, inputs=[{"image": "busybox"} for _ in range(7)])
    assert [job["status"] for job in jobs] == ["ROUTED"] * 2 + ["PENDING"] * 5
    for job in jobs:
        await eventually(lambda job=job: has_status(admin, job["id"], "SUCCEEDED"))


async def test_simulated_hosts_take_only_jobs_that_ask_for_them(admin: Api) -> None:
    await admin(CREATE_HOST, input={"name": "sim", "executorType": "SIMULATED"})
    assert (await admin.submit())["waitingOn"]["rejections"] == [{"code": "EXECUTOR_TYPE", "hosts": 1}]
    assert (await admin.submit(preferredExecutor="SIMULATED"))["status"] == "ROUTED"


async def test_many_jobs_get_one_answer_each_in_order(admin: Api, sim: dict) -> None:
    inputs = [{"image": "one"}, {"image": "NOT AN IMAGE", "memoryLimitMb": -5}, {"image": "three", "name": "third"}]
    one, two, three = await admin(SUBMIT_MANY, inputs=inputs)
    assert (one["__typename"], three["name"]) == ("ContainerJob", "third")
    assert two["__typename"] == "ValidationFailed"
    assert [field["field"] for field in two["fields"]] == ["inputs.1.image", "inputs.1.memoryLimitMb"]
    error = await admin.error(SUBMIT_MANY, inputs=[{"image": "x"}] * 10_001)
    assert "at most 10000" in error["message"]


async def test_an_idempotency_key_gives_the_first_job_back(admin: Api, sim: dict, url: str) -> None:
    first = await admin.submit(idempotencyKey="k", command=["echo 1"])
    again = await admin.submit(idempotencyKey="k", command=["echo 1"])
    assert again["id"] == first["id"]
    other = await admin(SUBMIT, input={"image": "busybox:test", "idempotencyKey": "k", "command": ["echo 2"]})
    assert (other["__typename"], other["message"][:15]) == ("Conflict", "idempotencyKey:")
    both = await admin(SUBMIT_MANY, inputs=[{"image": "x", "idempotencyKey": "twin"}] * 2)
    assert both[0]["id"] == both[1]["id"]
    somebody = Api(url, await make_token(Role.OPERATOR))
    assert (await somebody.submit(idempotencyKey="k", command=["echo 1"]))["id"] != first["id"]
    await somebody.http.aclose()


async def test_routing_a_waiting_job_by_hand(admin: Api, sim: dict) -> None:
    # In its back-off, so that the queue leaves it to us.
    waiting = await make_job(not_before=timezone.now() + timedelta(hours=1))
    decision = await admin(ROUTE, id=to_global("ContainerJob", waiting.pk))
    assert (decision["__typename"], decision["host"]["name"]) == ("RoutingDecision", "sim")
    assert decision["job"]["id"] == to_global("ContainerJob", waiting.pk)
    again = await admin(ROUTE, id=to_global("ContainerJob", waiting.pk))
    assert again["__typename"] == "Conflict"
    impossible = await make_job(region_preference="mars", region_required=True)
    refused = await admin(ROUTE, id=to_global("ContainerJob", impossible.pk))
    assert (refused["__typename"], refused["verdict"]) == ("RoutingRefused", "NEVER")
    assert refused["rejections"] == [{"code": "REGION", "hosts": 1}]
    ids = [to_global("ContainerJob", pk) for pk in (impossible.pk, 4711)]
    many = "mutation($ids: [ID!]!) { routeJobs(ids: $ids) { __typename } }"
    assert [entry["__typename"] for entry in await admin(many, ids=ids)] == ["RoutingRefused", "NotFound"]


async def test_cancelling(admin: Api, sim: dict) -> None:
    waiting = await admin.submit(regionPreference="mars", regionRequired=True)
    assert (await admin(CANCEL, id=waiting["id"]))["status"] == "CANCELLED"
    assert (await admin(CANCEL, id=waiting["id"]))["message"] == "The job has ended already: it is CANCELLED."
    running = await admin.submit(command=["sleep 60"])
    await eventually(lambda: has_status(admin, running["id"], "RUNNING"))
    await admin(CANCEL, id=running["id"])
    assert (await admin(CANCEL, id=running["id"]))["__typename"] in {"ContainerJob", "Conflict"}
    await eventually(lambda: has_status(admin, running["id"], "CANCELLED"))
    assert (await admin(CANCEL, id=to_global("ContainerJob", 4711)))["__typename"] == "NotFound"


async def test_a_failure_is_tried_again_as_often_as_allowed(admin: Api, sim: dict) -> None:
    job = await admin.submit(command=["echo try; exit 5"], maxAttempts=3)
    job = await eventually(lambda: status_of(admin, job["id"], "FAILED", attempt=3))
    assert (job["attempt"], job["exitCode"]) == (3, 5)
    assert [edge["node"]["text"] for edge in job["logs"]["edges"]] == ["try"] * 3
    kinds = await event_kinds(admin, job["id"])
    assert kinds.count("JOB_RETRIED") == 2
    assert kinds.count("JOB_FINISHED") == 3


async def test_a_host_that_fails_launches_loses_its_jobs_to_others(admin: Api) -> None:
    await admin(CREATE_HOST, input={**SIMULATED, "name": "bad", "config": {"accept": "any", "fail_launch": 1.0}})
    job = await admin.submit()
    await eventually(lambda: status_of(admin, job["id"], "PENDING", attempt=2))
    await admin(CREATE_HOST, input=SIMULATED)
    bad = await admin('{ host(name: "bad") { id } }')
    await admin(host_mutation("drainHost"), id=bad["id"])
    done = await eventually(lambda: status_of(admin, job["id"], "SUCCEEDED"))
    assert done["host"]["name"] == "sim"


async def test_a_job_that_every_host_fails_ends_failed(admin: Api) -> None:
    await admin(CREATE_HOST, input={**SIMULATED, "config": {"accept": "any", "fail_launch": 1.0}})
    job = await make_job(answered_failures=2)
    await admin(ROUTE, id=to_global("ContainerJob", job.pk))
    ended = await eventually(lambda: status_of(admin, to_global("ContainerJob", job.pk), "FAILED"))
    assert "config.fail_launch" in ended["error"]


# ------------------------------------------------------------------ lists


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
        return len([sql for sql in statements if "containerjob" in sql and sql.startswith("SELECT")])

    assert await queries(2) == await queries(20)


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


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ('{ job(id: "nonsense") { id } }', "id: 'nonsense' is not an id."),
        (f'{{ job(id: "{to_global("ExecutorHost", 1)}") {{ id }} }}', "of a ExecutorHost, not of a ContainerJob"),
        (f'{{ node(id: "{to_global("Teapot", 1)}") {{ id }} }}', "there is no type Teapot"),
        (f'{{ node(id: "{to_global("ContainerJob", 2**70)}") {{ id }} }}', "is not an id"),
        ('{ jobs(after: "x") { edges { cursor } } }', "after: 'x' is not a cursor."),
        ("{ jobs(first: 101) { edges { cursor } } }", "first: must be from 0 to 100."),
        ("{ jobs(first: -1) { edges { cursor } } }", "first: must be from 0 to 100."),
        ("{ jobs(first: 1, last: 1) { edges { cursor } } }", "give first or last, not both"),
        ("{ host { id } }", "give either id or name"),
        ('{ jobs(filters: {labels: ["x"]}) { edges { cursor } } }', "labels: must be an object"),
    ],
)
async def test_a_bad_argument_is_named(admin: Api, query: str, sentence: str) -> None:
    error = await admin.error(query)
    assert sentence in error["message"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    ("input", "field", "sentence"),
    [
        (
            {"config": {"launch_mss": 1}},
            "config.launch_mss",
            "config.launch_mss is not a setting of this executor type.",
        ),
        ({"config": "text"}, "config", "must be an object"),
        ({"name": "no good"}, "name", "must begin with a letter"),
        ({"executorType": "CLOUDRUN", "config": {"region": "europe-west1"}}, "config.project", "Field required"),
        ({"routingWeight": 1001}, "routingWeight", "less than or equal to 1000"),
    ],
)
async def test_a_bad_host_is_validation_failed(admin: Api, input: dict, field: str, sentence: str) -> None:
    refused = await admin(CREATE_HOST, input={"name": "x", "executorType": "SIMULATED", **input})
    assert refused["__typename"] == "ValidationFailed"
    (entry,) = refused["fields"]
    assert entry["field"] == field
    assert sentence in entry["message"]
    assert not await ExecutorHost.objects.aexists()


async def test_a_bad_job_is_validation_failed(admin: Api) -> None:
    refused = await admin(SUBMIT, input={"image": "UPPER", "memoryLimitMb": -1})
    assert refused["__typename"] == "ValidationFailed"
    assert {entry["field"] for entry in refused["fields"]} == {"image", "memoryLimitMb"}
    assert "memoryLimitMb" in refused["message"]


async def test_a_name_that_exists_is_a_conflict(admin: Api, sim: dict) -> None:
    refused = await admin(CREATE_HOST, input=SIMULATED)
    assert (refused["__typename"], refused["message"]) == ("Conflict", "name: a host named 'sim' exists already.")
    other = await admin(CREATE_HOST, input={**SIMULATED, "name": "other"})
    assert (await admin(UPDATE_HOST, id=other["id"], input={"name": "sim"}))["__typename"] == "Conflict"


async def test_an_unknown_type_is_refused_before_anything_runs(admin: Api) -> None:
    error = await admin.error(CREATE_HOST, input={"name": "x", "executorType": "TEAPOT"})
    assert "TEAPOT" in error["message"]
    assert "executorType" in error["message"]


async def test_a_document_of_ten_megabytes_is_refused(admin: Api) -> None:
    error = await admin.error("{ eventCursor } #" + "x" * 10_000_000)
    assert error["message"].startswith("query: the document has 10000017 bytes; at most 65536 are allowed.")
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    answer = await admin.http.post("/graphql", content=b'{"query": "' + b"x" * 17_000_000 + b'"}', headers=JSON)
    assert answer.status_code == 413
    assert "larger than 16777216 bytes" in answer.json()["errors"][0]["message"]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body", [b"3", b"[1]", b'"x"', b"nonsense", b"\xff\xfe", b'{"query": 5}', b"{}", b"null", b"[]"]
)
async def test_a_body_that_is_no_request_is_a_client_error(admin: Api, body: bytes) -> None:
    answer = await admin.http.post("/graphql", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"]


BOTH = {"Accept": "application/graphql-response+json, application/json, text/event-stream, multipart/mixed"}


async def test_who_takes_json_and_streams_gets_a_stream_for_subscriptions_only(admin: Api) -> None:
    for query in ("{ eventCursor }", "mutation { checkHealth { id } }", "{ nonsense }", "{"):
        answer = await admin.http.post("/graphql", json={"query": query}, headers=BOTH)
        assert answer.headers["content-type"] == "application/json"
    await admin(CREATE_HOST, input={"name": "h", "executorType": "SIMULATED"})
    body = {"query": 'subscription { routingEvents(after: "0") { kind } }'}
    async with admin.http.stream("POST", "/graphql", json=body, headers=BOTH) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        first = await anext(stream.aiter_text())
    assert first.startswith("event: next\ndata: {")
    assert "\r" not in first


async def test_a_stream_without_a_token_is_refused(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as nobody:
        answer = await nobody.post("/graphql", json={}, headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_subscription_over_plain_http_says_how_to_do_it(admin: Api) -> None:
    answer = await admin.http.post("/graphql", json={"query": "subscription { routingEvents { cursor } }"})
    assert answer.status_code == 400
    assert "text/event-stream" in answer.json()["errors"][0]["message"]


async def test_costly_documents_are_refused(admin: Api) -> None:
    many = " ".join(f"a{n}: eventCursor" for n in range(101))
    assert "its aliases is 101" in (await admin.error(f"{{ {many} }}"))["message"]
    deep = "job { decisions { " * 10 + "id" + " } }" * 10
    answer = await admin.post(f"{{ routingEvents {{ edges {{ node {{ {deep} }} }} }} }}")
    assert "its depth" in answer["errors"][0]["message"]
    inner = "hosts(first: 100) { edges { node { checks { code } } } }"
    wide = f"{{ jobs(first: 100) {{ edges {{ node {{ decisions {{ {inner} }} }} }} }} }}"
    assert "its cost" in (await admin.error(wide))["message"]
    bomb = "{ jobs { ...f0 } } " + " ".join(
        f"fragment f{n} on ContainerJobConnection {{ ...f{n + 1} ...f{n + 1} }}" for n in range(60)
    )
    answer = await admin.post(bomb + " fragment f60 on ContainerJobConnection { pageInfo { hasNextPage } }")
    assert "its cost" in answer["errors"][0]["message"]
    hidden = (
        "{ jobs { ...{ edges { node { decisions { hosts(first: 100) { edges { node { checks { code } } } } } } } } } }"
    )
    assert "its cost" in (await admin.error(hidden))["message"]
    negative = "{ z: jobs(first: -100000) { edges { cursor } } " + wide[1:]
    assert any("its cost" in error["message"] for error in (await admin.post(negative))["errors"])
    circle = (
        "{ jobs { ...a } } fragment a on ContainerJobConnection { ...b } fragment b on ContainerJobConnection { ...a }"
    )
    assert "Cannot spread fragment" in (await admin.post(circle))["errors"][0]["message"]
    tokens_ = "{ " + "eventCursor " * 5000 + "}"
    assert "4000 tokens" in (await admin.error(tokens_))["message"]


@pytest.mark.parametrize(
    "body",
    [
        '{"query": "mutation($i: JobInput!) { submitJob(input: $i) { __typename } }", "variables": {"i": {"image": "x", "command": ["\\ud800"]}}}',
        '{"query": "query($f: JobFilter) { jobs(filters: $f) { edges { cursor } } }", "variables": {"f": {"name": "\\ud800"}}}',
        "[" * 100_000,
        '{"query": ' + "9" * 5000 + "}",
    ],
)
async def test_json_that_cannot_be_kept_is_refused_at_the_door(admin: Api, body: str) -> None:
    answer = await admin.http.post("/graphql", content=body.encode(), headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"]


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


async def test_an_error_names_its_field_once(admin: Api) -> None:
    config = {"ulr": "x", "network": "host"}
    refused = await admin(CREATE_HOST, input={"name": "x", "executorType": "DOCKER", "config": config})
    assert refused["message"].count("config.ulr") == 1
    assert "config.network: must be the name of a network" in refused["message"]


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
            assert batch, "nothing is told by an empty batch"
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


async def test_a_revoked_token_ends_what_was_opened_with_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphql_api.auth.CHECK_SECONDS", 0.001)
    api = Api(url, await make_token(Role.ADMIN))
    async with api.socket() as connection:
        subscribe = {"id": "1", "type": "subscribe", "payload": {"query": EVENTS}}
        await connection.send(json.dumps(subscribe))
        await eventually(lambda: _host_is_made(api))
        await connection.recv()
        await ApiToken.objects.all().adelete()
        await connection.send(json.dumps({**subscribe, "id": "2"}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await _read_to_the_end(connection)
        assert closed.value.rcvd.code == 4403
    await api.http.aclose()


async def _read_to_the_end(connection: websockets.ClientConnection) -> None:
    while True:
        await connection.recv()


async def _host_is_made(api: Api) -> bool:
    return (await api(CREATE_HOST, input=SIMULATED))["__typename"] == "ExecutorHost"


async def test_a_host_with_jobs_is_not_moved(admin: Api, sim: dict) -> None:
    engine = await admin(
        CREATE_HOST, input={"name": "d", "executorType": "DOCKER", "config": {"url": "tcp://127.0.0.1:1"}}
    )
    await make_job(host=await ExecutorHost.objects.aget(name="d"), status="running", lease_owner="x")
    refused = await admin(UPDATE_HOST, id=engine["id"], input={"config": {"url": "tcp://127.0.0.1:2"}})
    assert refused["__typename"] == "Conflict"
    assert refused["message"].startswith("config: host d holds jobs")
    changed = await admin(
        UPDATE_HOST, id=engine["id"], input={"config": {"url": "tcp://127.0.0.1:1", "max_launches": 1}}
    )
    assert changed["__typename"] == "ExecutorHost"


async def test_pages_of_allowed_origins_may_call(admin: Api) -> None:
    from asgi import make_application

    origin = "http://localhost:5173"
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    assert "access-control-allow-origin" not in (await admin.http.options("/graphql", headers=asked)).headers
    allowing = settings.CONTAINER_MANAGER.model_copy(update={"allowed_origins": (origin,)})
    with patch.object(settings, "CONTAINER_MANAGER", allowing):
        application = make_application()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as client:
        answer = await client.options("/graphql", headers=asked)
    assert answer.headers["access-control-allow-origin"] == origin


async def test_introspection_works(admin: Api) -> None:
    from graphql import get_introspection_query

    assert (await admin(get_introspection_query()))["types"]


async def test_what_goes_wrong_inside_stays_inside(admin: Api, caplog: pytest.LogCaptureFixture) -> None:
    with patch("container_manager.store.events.newest", side_effect=RuntimeError("relation secret_table")):
        error = await admin.error("{ eventCursor }")
    assert "secret_table" not in json.dumps(error)
    assert error["extensions"]["code"] == "INTERNAL"
    incident = error["extensions"]["incident"]
    assert incident in error["message"]
    assert any(incident in record.getMessage() and "secret_table" in str(record.exc_info) for record in caplog.records)


# ------------------------------------------------------------------ who may


@pytest.mark.parametrize("secret", [None, "cm_wrong", "ünï"])
async def test_without_a_token_nothing_answers(url: str, secret: str | None) -> None:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}".encode()}
    async with httpx.AsyncClient(base_url=url) as client:
        for query in ("{ eventCursor }", "{ __schema { types { name } } }", "mutation { checkHealth { id } }"):
            answer = await client.post("/graphql", json={"query": query}, headers=headers)
            (error,) = answer.json()["errors"]
            assert error["extensions"]["code"] == "UNAUTHENTICATED"
            assert answer.json()["data"] is None


async def test_roles(url: str, admin: Api, sim: dict) -> None:
    viewer, operator = [Api(url, await make_token(role)) for role in (Role.VIEWER, Role.OPERATOR)]
    job = await operator.submit()
    assert (await viewer.job(job["id"]))["id"] == job["id"]
    for api, query, variables in (
        (viewer, SUBMIT, {"input": {"image": "x"}}),
        (viewer, CANCEL, {"id": job["id"]}),
        (viewer, host_mutation("drainHost"), {"id": sim["id"]}),
        (operator, host_mutation("drainHost"), {"id": sim["id"]}),
        (operator, CREATE_HOST, {"input": SIMULATED}),
        (operator, "mutation { checkHealth { id } }", {}),
    ):
        error = await api.error(query, **variables)
        assert error["extensions"]["code"] == "FORBIDDEN"
        assert "role" in error["message"]
    for api in (viewer, operator):
        await api.http.aclose()


async def test_every_root_field_that_changes_something_needs_a_role() -> None:
    from graphql_api.mutations import Mutation

    for field in Mutation.__strawberry_definition__.fields:
        assert field.permission_classes, field.name


async def test_tokens_expire_and_can_be_revoked(url: str) -> None:
    api = Api(url, await make_token(Role.VIEWER))
    await api("{ eventCursor }")
    token = await ApiToken.objects.aget()
    assert token.last_used_at is not None
    await ApiToken.objects.aupdate(expires_at=timezone.now() - timedelta(seconds=1))
    assert (await api.error("{ eventCursor }"))["extensions"]["code"] == "UNAUTHENTICATED"
    await api.http.aclose()
    assert api.headers["Authorization"].removeprefix("Bearer ") not in token.digest
    assert tokens.digest(api.headers["Authorization"].removeprefix("Bearer ")) == token.digest


async def test_changes_are_audited(admin: Api, sim: dict) -> None:
    job = await admin.submit()
    await admin(host_mutation("drainHost"), id=sim["id"])
    entries = [entry async for entry in AuditEntry.objects.order_by("pk")]
    assert [entry.action for entry in entries] == ["createHost", "submitJob", "drainHost"]
    assert {entry.actor for entry in entries} == {(await ApiToken.objects.aget()).name}
    assert {entry.address for entry in entries} == {"127.0.0.1"}
    assert entries[0].target == "sim"
    assert job["id"]


# ------------------------------------------------------------------ events


async def event_kinds(api: Api, job_id: str) -> list[str]:
    query = "query($id: ID) { routingEvents(filters: {jobId: $id}, first: 100) { edges { node { kind } } } }"
    return [edge["node"]["kind"] for edge in (await api(query, id=job_id))["edges"]]


async def has_status(api: Api, job_id: str, status: str) -> bool:
    return (await api.job(job_id))["status"] == status


async def status_of(api: Api, job_id: str, status: str, attempt: int | None = None) -> dict | None:
    job = await api.job(job_id)
    return job if job["status"] == status and attempt in {None, job["attempt"]} else None


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


async def connect(url: str) -> websockets.ClientConnection:
    return await websockets.connect(url.replace("http", "ws") + "/graphql", subprotocols=["graphql-transport-ws"])


@pytest.mark.parametrize("payload", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": 5}, None])
async def test_a_socket_without_a_token_is_closed(url: str, payload: dict | None) -> None:
    connection = await connect(url)
    message = {"type": "connection_init"} | ({} if payload is None else {"payload": payload})
    await connection.send(json.dumps(message))
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize(
    ("message", "code"),
    [("[1]", 4400), ('{"type": "complete", "id": [1]}', 4400), ("nonsense", 4400), ('{"type": "teapot"}', 4400), ('{"type": "subscribe", "id": "1", "payload": 5}', 4400),
     ('{"type": "subscribe", "id": "1", "payload": {"query": "{ eventCursor }", "variables": [1]}}', 4400),
     ('{"type": "subscribe", "id": "1", "payload": {"query": "{ eventCursor }"}}', 4401)],
)  # fmt: skip
async def test_a_socket_that_talks_nonsense_is_closed(url: str, message: str, code: int) -> None:
    connection = await connect(url)
    await connection.send(message)
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd.code == code


async def test_a_large_document_over_a_socket_is_refused(admin: Api) -> None:
    async with admin.socket() as connection:
        query = "{ eventCursor } #" + "x" * 70_000
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
        message = json.loads(await connection.recv())
    assert message["type"] == "error"
    assert message["payload"][0]["message"].startswith("query: the document has")


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


async def test_other_paths_take_no_sockets(admin: Api) -> None:
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await websockets.connect(admin.url.replace("http", "ws") + "/elsewhere")


async def test_probes_need_no_token(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/livez")).text == "ok\n"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "failing": []})
        with patch("container_manager.store.hosts.any_exist", side_effect=OSError("gone")):
            ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["failing"]) == (503, ["The database does not answer."])
        assert (await client.get("/nowhere")).status_code == 404


async def test_only_allowed_hosts_are_answered(admin: Api) -> None:
    body = {"query": "{ eventCursor }"}
    refused = await admin.http.post("/graphql", json=body, headers={"Host": "rebound.example"})
    assert (refused.status_code, "CONTAINER_MANAGER_ALLOWED_HOSTS" in refused.text) == (400, True)
    for name in ("localhost:99", "[::1]:8000", "127.0.0.1"):
        assert (await admin.http.post("/graphql", json=body, headers={"Host": name})).status_code == 200
    assert (await admin.http.get("/livez", headers={"Host": "10.0.0.7"})).status_code == 200
    address = admin.url.replace("http", "ws") + "/graphql"
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await websockets.connect(
            address.replace("127.0.0.1", "rebound.example"), host="127.0.0.1", port=httpx.URL(admin.url).port
        )
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await websockets.connect(address, origin="https://elsewhere.example")


async def test_health_changes_are_events_and_open_the_way(admin: Api, simulated: Callable[..., ExecutorHost]) -> None:
    cursor = await admin("{ eventCursor }")
    await simulated(name="later", health_status="unknown", config={"accept": "any", "launch_ms": 0, "run_ms": 1})
    async with admin.subscribe(EVENTS, after=cursor, filters={"kinds": ["HOST_HEALTH_CHANGED"]}) as events:
        waiting = await admin.submit()
        await admin("mutation { checkHealth { id } }")
        event = await anext(events)
    assert event["host"]["name"] == "later"
    assert "unknown to healthy" in event["message"]
    await eventually(lambda: has_status(admin, waiting["id"], "SUCCEEDED"))
