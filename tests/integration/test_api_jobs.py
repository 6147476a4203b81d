"""Jobs through the API: submitting, routing, cancelling and retrying them."""

from datetime import timedelta
from unittest.mock import patch

from django.utils import timezone

from container_manager.domain.kinds import Role
from graphql_api.ids import to_global
from tests.api import CANCEL, SIMULATED, SUBMIT_MANY, event_kinds, host_mutation, make_hosts, make_job
from tests.client import CREATE_HOST, SUBMIT, Api
from tests.eventually import eventually
from tests.jobs import has_status
from tests.server import make_token

ROUTE = """mutation($id: ID!) { routeJob(id: $id) {
    __typename ... on RoutingDecision { reason host { name } job { id status } }
    ... on RoutingRefused { verdict rejections { code hosts } } ... on UserError { message } } }"""


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
    another = Api(url, await make_token(Role.OPERATOR))
    assert (await another.submit(idempotencyKey="k", command=["echo 1"]))["id"] != first["id"]
    await another.http.aclose()


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


async def status_of(api: Api, job_id: str, status: str, attempt: int | None = None) -> dict | None:
    job = await api.job(job_id)
    return job if job["status"] == status and attempt in {None, job["attempt"]} else None


BULK = "mutation($filters: {kind}Filter!, $dry: Boolean!) {{ {name}(filters: $filters, dryRun: $dry) {{ matched changed more }} }}"


async def test_jobs_are_cancelled_and_retried_by_a_filter(admin: Api) -> None:
    for team in ("a", "a", "b"):
        await admin.submit(labels={"team": team}, hostSelector={"no": "host"})
    cancel, retry = (BULK.format(kind="Job", name=name) for name in ("cancelJobs", "retryJobs"))
    of_a = {"labels": {"team": "a"}}
    assert await admin(cancel, filters=of_a, dry=True) == {"matched": 2, "changed": 0, "more": False}
    assert await admin(cancel, filters=of_a, dry=False) == {"matched": 2, "changed": 2, "more": False}
    assert await admin(cancel, filters=of_a, dry=False) == {"matched": 0, "changed": 0, "more": False}
    assert await admin(retry, filters={}, dry=False) == {"matched": 2, "changed": 2, "more": False}
    with patch("container_manager.service.jobs.MOST_AT_ONCE", 2):
        assert await admin(cancel, filters={}, dry=False) == {"matched": 2, "changed": 2, "more": True}
    assert await admin(cancel, filters={}, dry=False) == {"matched": 1, "changed": 1, "more": False}


async def test_hosts_are_drained_and_resumed_by_a_filter(admin: Api) -> None:
    await make_hosts(2, region="eu")
    await make_hosts(1, region="us")
    drain, resume = (BULK.format(kind="Host", name=name) for name in ("drainHosts", "resumeHosts"))
    assert await admin(drain, filters={"region": "eu"}, dry=True) == {"matched": 2, "changed": 0, "more": False}
    assert await admin(drain, filters={"region": "eu"}, dry=False) == {"matched": 2, "changed": 2, "more": False}
    assert await admin(drain, filters={}, dry=False) == {"matched": 1, "changed": 1, "more": False}
    drained = await admin("{ hosts(filters: {isDraining: true}) { edges { node { region } } } }")
    assert [edge["node"]["region"] for edge in drained["edges"]] == ["eu", "eu", "us"]
    assert await admin(resume, filters={"isDraining": True}, dry=False) == {"matched": 3, "changed": 3, "more": False}


async def test_what_is_json_is_also_there_as_types(admin: Api, sim: dict) -> None:
    job = await admin.submit(
        labels={"team": "ml"}, hostSelector={"zone": "b", "disk": "ssd"}, tmpfs=[{"path": "/scratch", "sizeMb": 64}]
    )
    query = """query($id: ID!) { job(id: $id) { labelList { name value } hostSelector hostSelectorList { name value }
        tmpfs tmpfsList { path sizeMb } } }"""
    assert await admin(query, id=job["id"]) == {
        "labelList": [{"name": "team", "value": "ml"}],
        "hostSelector": {"zone": "b", "disk": "ssd"},
        "hostSelectorList": [{"name": "disk", "value": "ssd"}, {"name": "zone", "value": "b"}],
        "tmpfs": {"/scratch": 64},
        "tmpfsList": [{"path": "/scratch", "sizeMb": 64}],
    }
