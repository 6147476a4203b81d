"""Hosts through the API."""

from collections.abc import Callable

from asgiref.sync import sync_to_async
from graphql import get_named_type, is_leaf_type

from container_manager.models import ContainerJob, ExecutorHost
from graphql_api.ids import to_global
from graphql_api.schema import schema
from tests.api import CANCEL, SIMULATED, UPDATE_HOST, host_mutation, make_hosts, make_job
from tests.client import CREATE_HOST, EVENTS, Api
from tests.eventually import eventually
from tests.jobs import has_status


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


async def test_a_change_without_effect_is_no_event(admin: Api, sim: dict) -> None:
    for mutation in ("drainHost", "drainHost", "resumeHost", "resumeHost"):
        await admin(host_mutation(mutation), id=sim["id"])
    found = await admin('{ routingEvents(after: "0", first: 50) { edges { node { kind } } } }')
    kinds = [edge["node"]["kind"] for edge in found["edges"]]
    assert [kind for kind in kinds if kind in {"HOST_DRAINED", "HOST_RESUMED"}] == ["HOST_DRAINED", "HOST_RESUMED"]


async def test_cores_are_added_exactly(admin: Api) -> None:
    first, second = await make_hosts(2)
    await make_job(host=first, status="running", cpu_limit=0.1)
    await make_job(host=second, status="running", cpu_limit=0.2)
    (group,) = await admin("{ capacity { capacity { reservedCpuCores } } }")
    assert group["capacity"]["reservedCpuCores"] == 0.3


async def test_each_field_of_a_host_can_be_read_alone(admin: Api, sim: dict) -> None:
    kind = schema._schema.get_type("ExecutorHost")
    for name, field in kind.fields.items():
        parts = "" if is_leaf_type(get_named_type(field.type)) else "{ __typename }"
        found = await admin(f"{{ hosts(first: 1) {{ edges {{ node {{ {name} {parts} }} }} }} }}")
        assert name in found["edges"][0]["node"]


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
