"""Hosts described by what they should be, and partial changes of their settings."""

from typing import Any
from unittest.mock import patch

import pytest

from container_manager.domain.lifecycle import JobStatus
from container_manager.errors import NotFound
from container_manager.models import AuditEntry, ExecutorHost
from container_manager.service.hosts import Hosts
from tests.api import UPDATE_HOST, make_hosts, make_job
from tests.client import CREATE_HOST, USER_ERRORS, Api

APPLY = f"""mutation($inputs: [HostInput!]!, $dryRun: Boolean! = false) {{ applyHosts(inputs: $inputs, dryRun: $dryRun) {{
    name change difference result {{ __typename ... on ExecutorHost {{ id routingWeight config }} {USER_ERRORS} }} }} }}"""
ENGINE = {"url": "tcp://127.0.0.1:1", "tls": {"ca": "-", "verify": False}, "max_launches": 2}


def changes(applied: list[dict[str, Any]]) -> list[str]:
    return [entry["change"] for entry in applied]


async def test_hosts_are_made_what_they_should_be(admin: Api) -> None:
    def fleet(**second: Any) -> list[dict[str, Any]]:
        eu = {"name": "eu", "executorType": "SIMULATED", "region": "eu", "config": {"accept": "any"}}
        return [eu, {"name": "us", "executorType": "SIMULATED", "routingWeight": 7, **second}]

    planned = await admin(APPLY, inputs=fleet(), dryRun=True)
    assert changes(planned) == ["CREATED", "CREATED"]
    assert planned[0]["result"] is None
    assert await ExecutorHost.objects.acount() == 0
    assert changes(await admin(APPLY, inputs=fleet())) == ["CREATED", "CREATED"]
    assert changes(await admin(APPLY, inputs=fleet())) == ["UNCHANGED", "UNCHANGED"]
    changed = fleet(routingWeight=9, config={"run_ms": 5})
    planned = await admin(APPLY, inputs=changed, dryRun=True)
    assert changes(planned) == ["UNCHANGED", "UPDATED"]
    assert planned[1]["difference"] == "routingWeight: 7 to 9; config: run_ms changed"
    assert planned[1]["result"]["routingWeight"] == 7
    applied = await admin(APPLY, inputs=changed)
    assert (applied[1]["result"]["routingWeight"], applied[1]["result"]["config"]) == (9, {"run_ms": 5})
    rows = [row async for row in AuditEntry.objects.filter(action="updateHost")]
    assert [(row.target, row.detail) for row in rows] == [("us", "routingWeight: 7 to 9; config: run_ms changed")]


async def test_a_host_that_cannot_be_applied_hinders_no_other(admin: Api, sim: dict) -> None:
    applied = await admin(
        APPLY,
        inputs=[
            {"name": "bad", "executorType": "SIMULATED", "config": {"run": 1}},
            {"name": "sim", "executorType": "DOCKER"},
            {"name": "twin", "executorType": "SIMULATED"},
            {"name": "twin", "executorType": "SIMULATED"},
            {"name": "good", "executorType": "SIMULATED"},
        ],
    )
    assert changes(applied) == ["REFUSED", "REFUSED", "REFUSED", "REFUSED", "CREATED"]
    assert applied[0]["result"]["fields"][0]["field"] == "config.run"
    assert applied[1]["result"]["message"].startswith("executorType: host sim is SIMULATED, which cannot be changed")
    assert applied[2]["result"]["message"] == "name: twin is given twice."


async def test_a_partial_config_is_merged(admin: Api) -> None:
    host = await admin(CREATE_HOST, input={"name": "far", "executorType": "DOCKER", "config": ENGINE})
    changed = await admin(UPDATE_HOST, id=host["id"], input={"config": {"tls": {"verify": True}}})
    assert changed["config"] == {**ENGINE, "tls": {"ca": "-", "verify": True}}
    changed = await admin(UPDATE_HOST, id=host["id"], input={"config": {"tls": {"ca": None}, "max_launches": None}})
    assert changed["config"] == {"url": ENGINE["url"], "tls": {"verify": True}}


async def test_a_secret_does_not_follow_a_merged_address(admin: Api) -> None:
    config = {**ENGINE, "registry_auth": {"r.io": {"username": "me", "password": "swordfish"}}}
    host = await admin(CREATE_HOST, input={"name": "far", "executorType": "DOCKER", "config": config})
    elsewhere = {"url": "tcp://127.0.0.1:2"}
    refused = await admin(UPDATE_HOST, id=host["id"], input={"config": elsewhere})
    assert refused["fields"][0]["field"] == "config.registry_auth.r.io.password"
    assert "secrets must be given again" in refused["fields"][0]["message"]
    moved = await admin(UPDATE_HOST, id=host["id"], input={"config": {**elsewhere, "registry_auth": {"r.io": None}}})
    assert moved["config"]["url"] == elsewhere["url"]


@pytest.mark.parametrize(
    "name", ["name", "region", "labels", "routingWeight", "maxConcurrentJobs", "isActive", "config"]
)
async def test_null_is_refused_where_a_value_is_needed(admin: Api, sim: dict, name: str) -> None:
    query = "mutation($id: ID!, $input: HostPatch!) { updateHost(id: $id, input: $input) { ... on ValidationFailed { fields { field message reason } } } }"
    refused = await admin(query, id=sim["id"], input={name: None})
    empty = {"region": ', or send "" to empty it', "labels": ", or send {} to empty it"}.get(name, "")
    reason = f"Must not be null; leave it out to keep its value{empty}."
    assert refused["fields"] == [{"field": name, "message": f"{name}: m{reason[1:]}", "reason": reason}]


async def test_a_taken_name_is_a_conflict_of_that_field(admin: Api, sim: dict) -> None:
    query = "mutation($input: HostInput!) { createHost(input: $input) { ... on Conflict { field message } } }"
    taken = await admin(query, input={"name": "sim", "executorType": "SIMULATED"})
    assert taken == {"field": "name", "message": "name: a host named 'sim' exists already."}


async def test_hosts_are_found_by_their_free_capacity(admin: Api) -> None:
    # Of another node, so that no loop of this process runs their jobs.
    far = {"executor_type": "docker", "config": {"node": "elsewhere"}}
    small, large, open_ended = await make_hosts(3, max_concurrent_jobs=4, reported_cpu_cores=8, **far)
    await ExecutorHost.objects.filter(pk=small.pk).aupdate(max_memory_mb=1000, max_cpu_cores=1)
    await ExecutorHost.objects.filter(pk=large.pk).aupdate(reported_memory_mb=64_000, max_concurrent_jobs=2)
    await make_job(host=small, status=JobStatus.RUNNING, memory_limit=900, cpu_limit=0.75)
    await make_job(host=large, status=JobStatus.ROUTED, memory_limit=900, cpu_limit=2)
    await make_job(host=large, status=JobStatus.SUCCEEDED)

    async def found(filters: dict[str, Any]) -> set[str]:
        query = "query($filters: HostFilter) { hosts(filters: $filters) { edges { node { name } } } }"
        return {edge["node"]["name"] for edge in (await admin(query, filters=filters))["edges"]}

    assert await found({"minFreeSlots": 2}) == {small.name, open_ended.name}
    assert await found({"minFreeMemoryMb": 101}) == {large.name, open_ended.name}
    assert await found({"NOT": {"minFreeMemoryMb": 101}}) == {small.name}
    assert await found({"minFreeCpuCores": 0.25}) == {small.name, large.name, open_ended.name}
    assert await found({"minFreeCpuCores": 6.5}) == {open_ended.name}


async def test_settings_are_typed_and_have_their_defaults(admin: Api) -> None:
    docker = {
        **ENGINE,
        "mounts": {"/data": {"source": "/srv/data"}},
        "registry_auth": {"r.io": {"username": "me", "password": "swordfish"}},
        "allow": {"user": False, "networks": ["inner"]},
    }
    await admin(CREATE_HOST, input={"name": "engine", "executorType": "DOCKER", "config": docker})
    cloud = {
        "project": "p-1",
        "region": "europe-west1",
        "endpoint": "localhost:1",
        "plaintext": True,
        "vpc": {"network": "n"},
    }
    await admin(CREATE_HOST, input={"name": "cloud", "executorType": "CLOUDRUN", "config": cloud})
    await admin(CREATE_HOST, input={"name": "sim", "executorType": "SIMULATED", "config": {"run_ms": 5_000_000_000}})
    query = """{ hosts(orderBy: NAME) { edges { node { settings { __typename
        ... on DockerSettings { url hasTls verifiesCertificate network allowsUser allowedNetworks pull registries maxLaunches
            maxPulls mounts { path source readOnly } registryLogins { registry username } }
        ... on CloudRunSettings { project region longestTimeoutSeconds vpc { network egress tags } }
        ... on SimulatedSettings { accept runMs } } } } } }"""
    cloud_run, engine, simulated = [edge["node"]["settings"] for edge in (await admin(query))["edges"]]
    assert cloud_run == {
        "__typename": "CloudRunSettings", "project": "p-1", "region": "europe-west1", "longestTimeoutSeconds": 86_400,
        "vpc": {"network": "n", "egress": "private-ranges-only", "tags": []},
    }  # fmt: skip
    assert engine == {
        "__typename": "DockerSettings", "url": ENGINE["url"], "hasTls": True, "verifiesCertificate": False,
        "network": "none", "allowsUser": False, "allowedNetworks": ["inner"], "pull": "if-not-present",
        "registries": None, "maxLaunches": 2, "maxPulls": 10,
        "mounts": [{"path": "/data", "source": "/srv/data", "readOnly": True}],
        "registryLogins": [{"registry": "r.io", "username": "me"}],
    }  # fmt: skip
    assert simulated == {"__typename": "SimulatedSettings", "accept": "preferred", "runMs": 5_000_000_000}


async def test_a_host_that_is_deleted_meanwhile_is_a_conflict(admin: Api, sim: dict) -> None:
    async def deletes(self: Hosts, *_: object) -> ExecutorHost:
        raise NotFound("There is no such host.")

    with patch.object(Hosts, "_save", deletes):
        (applied,) = await admin(APPLY, inputs=[{"name": "sim", "executorType": "SIMULATED", "routingWeight": 3}])
    assert (applied["change"], applied["result"]["__typename"]) == ("REFUSED", "Conflict")
    assert applied["result"]["message"] == "name: host sim has just been deleted; apply it again to create it."


async def test_a_region_from_the_config_follows_it(admin: Api) -> None:
    config = {"project": "p-1", "region": "europe-west1", "endpoint": "localhost:1", "plaintext": True}
    cloud = {"name": "cloud", "executorType": "CLOUDRUN", "config": config}
    assert changes(await admin(APPLY, inputs=[cloud])) == ["CREATED"]
    moved = {**cloud, "config": {"region": "us-east1"}}
    (planned,) = await admin(APPLY, inputs=[moved], dryRun=True)
    assert planned["difference"] == 'region: "europe-west1" to "us-east1"; config: region changed'
    await admin(APPLY, inputs=[moved])
    assert (await ExecutorHost.objects.aget()).region == "us-east1"


async def test_a_config_that_is_nested_too_deeply_is_refused(admin: Api, sim: dict) -> None:
    config: dict[str, Any] = {}
    for _ in range(300):
        config = {"a": config}
    refused = await admin(UPDATE_HOST, id=sim["id"], input={"config": config})
    assert refused["fields"] == [{"field": "config", "message": "config: is nested too deeply."}]
