"""Plans, why-not, suggestions and the queue, as a client of the API sees them."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from container_manager.models import ContainerJob, ExecutorHost, RoutingDecision, RoutingEvent
from container_manager.routing import checks
from graphql_api.ids import to_global
from tests.api import make_hosts
from tests.client import Api
from tests.eventually import eventually
from tests.factories import ContainerJobFactory
from tests.pages import blocks

make_job = sync_to_async(ContainerJobFactory)

REFUSED = "message verdict rejections { code hosts } suggestions { message hosts }"
PLAN = f"""query($jobs: [JobInput!]!, $assume: [HostAssumption!]) {{ planRouting(jobs: $jobs, assume: $assume) {{ placements {{
    __typename
    ... on Placement {{ host {{ id name }} executorType strategy reason
        hosts(first: 2) {{ edges {{ node {{ hostName chosen verdict checks {{ code passed }} }} }} pageInfo {{ hasNextPage }} }} }}
    ... on RoutingRefused {{ {REFUSED} }}
    ... on ValidationFailed {{ message fields {{ field }} }}
    ... on NotFound {{ message }} }} }} }}"""
WHY_NOT = """query($job: ID!, $host: ID!) { whyNot(jobId: $job, hostId: $host) {
    host { name } hostName verdict chosen weight checks { code passed verdict needed available message } } }"""
WAITING = f"query($id: ID!) {{ job(id: $id) {{ status waitingOn {{ {REFUSED} }} reservedHost {{ name }} queueTimeoutSeconds }} }}"
QUEUE = (
    "{ queue { pending active oldestSubmittedAt groups { verdict jobs oldestSubmittedAt rejections { code hosts } } } }"
)
ROUTE = f"mutation($id: ID!) {{ routeJob(id: $id) {{ __typename ... on RoutingRefused {{ {REFUSED} }} }} }}"
DECISIONS = """query($id: ID!) { job(id: $id) { decisions {
    reason replay rejections { code hosts } hosts { edges { node { hostName } } } } } }"""

Hosts = Callable[..., object]


async def plan(api: Api, *jobs: dict, assume: list[dict] | None = None) -> list[dict]:
    return (await api(PLAN, jobs=[{"image": "x", **job} for job in jobs], assume=assume))["placements"]


def of(host: ExecutorHost) -> str:
    return to_global("ExecutorHost", host.pk)


async def test_a_plan_says_where_jobs_would_go_and_writes_nothing(admin: Api, simulated: Hosts) -> None:
    await simulated(name="small", max_memory_mb=512, region="us")
    await simulated(name="large", max_memory_mb=4096, region="eu")
    one, two, bad, three = await plan(
        admin,
        {"memoryLimitMb": 4000, "strategy": "BALANCED"},
        {"memoryLimitMb": 4000},
        {"image": "NOT AN IMAGE"},
        {"memoryLimitMb": 500},
    )
    assert (one["__typename"], one["host"]["name"], one["strategy"]) == ("Placement", "large", "BALANCED")
    assert [edge["node"]["hostName"] for edge in one["hosts"]["edges"]] == ["large", "small"]
    assert [edge["node"]["chosen"] for edge in one["hosts"]["edges"]] == [True, False]
    assert two["__typename"] == "RoutingRefused", "the first has taken its room, in the plan"
    assert {r["code"]: r["hosts"] for r in two["rejections"]} == {"MEMORY": 2}
    assert bad == {"__typename": "ValidationFailed", "message": bad["message"], "fields": [{"field": "jobs.2.image"}]}
    assert three["host"]["name"] == "small"
    for model in (ContainerJob, RoutingDecision, RoutingEvent):
        assert not await model.objects.aexists()


async def test_a_plan_supposes_a_changed_fleet(admin: Api, simulated: Hosts) -> None:
    host = await simulated(name="only", max_concurrent_jobs=1, routing_weight=5)
    other = await simulated(name="other", is_active=False)
    (placed,) = await plan(
        admin, {}, assume=[{"hostId": of(host), "isDraining": True}, {"hostId": of(other), "isActive": True}]
    )
    assert placed["host"]["name"] == "other"
    (refused,) = await plan(admin, {}, assume=[{"hostId": of(host), "isDraining": True}])
    assert refused["verdict"] == "NOT_NOW"
    assert {s["message"] for s in refused["suggestions"]} == {"Resume host only.", "Activate host other."}
    many = await plan(admin, *[{}] * 3, assume=[{"hostId": of(host), "maxConcurrentJobs": 2}])
    assert [entry["__typename"] for entry in many] == ["Placement", "Placement", "RoutingRefused"]
    sized = {"hostId": of(host), "maxMemoryMb": 100, "maxCpuCores": 0.25, "routingWeight": 0}
    (never,) = await plan(admin, {"memoryLimitMb": 101, "cpuLimit": 0.3}, assume=[sized])
    assert {r["code"] for r in never["rejections"]} == {"INACTIVE", "MEMORY", "CPU"}
    (unlimited,) = await plan(admin, {"memoryLimitMb": 2**30}, assume=[{"hostId": of(host), "maxMemoryMb": None}])
    assert unlimited["__typename"] == "Placement"


async def test_a_plan_names_bad_assumptions(admin: Api, simulated: Hosts) -> None:
    host = await simulated()
    (gone,) = await plan(admin, {}, assume=[{"hostId": to_global("ExecutorHost", 999)}])
    assert gone == {"__typename": "NotFound", "message": "assume: there is no such host."}
    (bad,) = await plan(admin, {}, assume=[{"hostId": of(host), "routingWeight": 1001}])
    assert bad["fields"] == [{"field": "assume.0.routingWeight"}]
    twice = await admin.error(PLAN, jobs=[{"image": "x"}], assume=[{"hostId": of(host)}] * 2)
    assert "named twice" in twice["message"]
    many = await admin.error(PLAN, jobs=[{"image": "x"}] * 1001)
    assert "at most 1000" in many["message"]


async def test_a_plan_supposes_further_hosts(admin: Api, simulated: Hosts) -> None:
    await simulated(name="small", max_memory_mb=512)
    query = """query($jobs: [JobInput!]!, $hosts: [HostInput!]) { planRouting(jobs: $jobs, addHosts: $hosts) { placements {
        __typename ... on Placement { hostName executorType host { id name capacity { availableSlots } jobs { edges { cursor } } }
            hosts { edges { node { hostName host { name } } } } }
        ... on ValidationFailed { fields { field message } } ... on RoutingRefused { rejections { code hosts } } } } }"""
    job = {"image": "x", "memoryLimitMb": 4000}
    large = {"name": "large", "executorType": "DOCKER", "maxConcurrentJobs": 1, "maxMemoryMb": 8000}
    first, second = (await admin(query, jobs=[job, job], hosts=[large]))["placements"]
    assert (first["hostName"], first["executorType"]) == ("large", "DOCKER")
    assert first["host"] == {
        "id": first["host"]["id"], "name": "large", "capacity": {"availableSlots": 1}, "jobs": {"edges": []},
    }  # fmt: skip
    assert [edge["node"] for edge in first["hosts"]["edges"]] == [
        {"hostName": "large", "host": None}, {"hostName": "small", "host": {"name": "small"}},
    ]  # fmt: skip
    assert {entry["code"]: entry["hosts"] for entry in second["rejections"]} == {"SLOTS": 1, "MEMORY": 1}
    for wrong, field in (
        ({"name": "small"}, "name"),
        ({"config": {"no": 1}}, "config.no"),
        ({"maxConcurrentJobs": -1}, "maxConcurrentJobs"),
    ):
        (refused,) = (await admin(query, jobs=[job], hosts=[{**large, **wrong}]))["placements"]
        assert [entry["field"] for entry in refused["fields"]] == [f"addHosts.0.{field}"]
    assert await ExecutorHost.objects.acount() == 1
    many = await admin.error(query, jobs=[job], hosts=[large] * 101)
    assert many["message"] == "addHosts: 101 are too many; at most 100 at a time."


async def test_a_plan_puts_those_who_wait_first(admin: Api, simulated: Hosts) -> None:
    host = await simulated(max_concurrent_jobs=0)
    await admin.submit()
    (refused,) = await plan(admin, {}, assume=[{"hostId": of(host), "maxConcurrentJobs": 1}])
    assert refused["__typename"] == "RoutingRefused"
    (placed,) = await plan(admin, {"priority": 1}, assume=[{"hostId": of(host), "maxConcurrentJobs": 1}])
    assert placed["__typename"] == "Placement"


async def test_why_not_that_host(admin: Api, simulated: Hosts) -> None:
    full = await simulated(name="full", max_concurrent_jobs=1, max_memory_mb=256)
    roomy = await simulated(name="roomy", max_memory_mb=8192)
    job = await make_job(host=full, status="running", memory_limit=100)
    waiting = await make_job(memory_limit=300, preferred_executor="docker", executor_required=True)
    job_id = to_global("ContainerJob", waiting.pk)
    found = await admin(WHY_NOT, job=job_id, host=of(full))
    failed = {check["code"]: check for check in found["checks"] if not check["passed"]}
    assert (found["hostName"], found["verdict"], found["chosen"]) == ("full", "NEVER", False)
    assert set(failed) == {"EXECUTOR_TYPE", "SLOTS", "MEMORY"}
    assert failed["MEMORY"]["message"] == "needs 300 MiB; found 156 MiB free of 256 MiB"
    assert failed["SLOTS"]["verdict"] == "NOT_NOW"
    assert len(found["checks"]) == 15
    held = await admin(WHY_NOT, job=to_global("ContainerJob", job.pk), host=of(full))
    assert (held["verdict"], held["chosen"]) == ("FEASIBLE", True), "what it holds itself is no obstacle"
    elsewhere = await admin(WHY_NOT, job=to_global("ContainerJob", job.pk), host=of(roomy))
    assert (elsewhere["verdict"], elsewhere["chosen"]) == ("FEASIBLE", False)
    assert await admin(WHY_NOT, job=job_id, host=to_global("ExecutorHost", 999)) is None
    assert await admin(WHY_NOT, job=to_global("ContainerJob", 999), host=of(full)) is None


async def test_suggestions_are_for_the_fleet_as_it_is_now(admin: Api, simulated: Hosts) -> None:
    host = await simulated(name="h", max_memory_mb=512, region="eu")
    job = await admin.submit(memoryLimitMb=1024)
    waits = (await admin(WAITING, id=job["id"]))["waitingOn"]
    assert waits["verdict"] == "NEVER"
    assert [s["message"] for s in waits["suggestions"]] == [
        "Ask for 512 MiB of memory instead of 1024.",
        "Raise maxMemoryMb of host h to 1024.",
    ]
    assert [s["hosts"] for s in waits["suggestions"]] == [1, 1]
    await ExecutorHost.objects.filter(pk=host.pk).aupdate(max_memory_mb=600)
    refused = await admin(ROUTE, id=job["id"])
    assert refused["suggestions"][0]["message"] == "Ask for 600 MiB of memory instead of 1024."


async def test_the_queue_in_numbers(admin: Api, simulated: Hosts) -> None:
    empty = await admin(QUEUE)
    assert empty == {"pending": 0, "active": 0, "oldestSubmittedAt": None, "groups": []}
    host = await simulated(max_concurrent_jobs=1)
    await make_job(host=host, status="running", lease_epoch=1)
    first = await admin.submit()
    await admin.submit(memoryLimitMb=300)
    found = await admin(QUEUE)
    assert (found["pending"], found["active"]) == (2, 1)
    (group,) = found["groups"]
    assert (group["jobs"], group["verdict"], group["rejections"]) == (2, "NOT_NOW", [{"code": "SLOTS", "hosts": 1}])
    submitted = (await admin("query($id: ID!) { job(id: $id) { submittedAt } }", id=first["id"]))["submittedAt"]
    assert found["oldestSubmittedAt"] == group["oldestSubmittedAt"] == submitted


async def test_a_refusal_is_a_decision_with_counts(admin: Api, simulated: Hosts) -> None:
    await simulated(name="one", max_concurrent_jobs=0)
    job = await admin.submit()
    (decision,) = (await admin(DECISIONS, id=job["id"]))["decisions"]
    assert decision["rejections"] == [{"code": "SLOTS", "hosts": 1}]
    assert decision["replay"] == "SAME"
    assert decision["hosts"]["edges"] == [{"node": {"hostName": "one"}}]


async def test_the_queue_timeout_is_checked_and_shown(admin: Api, simulated: Hosts) -> None:
    await simulated(max_concurrent_jobs=0)
    job = await admin.submit(queueTimeoutSeconds=3600)
    assert (await admin(WAITING, id=job["id"]))["queueTimeoutSeconds"] == 3600
    answer = await admin(
        "mutation($input: JobInput!) { submitJob(input: $input) { ... on ValidationFailed { fields { field } } } }",
        input={"image": "x", "queueTimeoutSeconds": 0},
    )
    assert answer["fields"] == [{"field": "queueTimeoutSeconds"}]


@pytest.mark.parametrize(
    "change",
    [{"max_concurrent_jobs": 1}, {"config": {"accept": "any", "run_ms": 60000}}],
    ids=["resized", "changed"],
)
async def test_room_wakes_the_queue_at_once(admin: Api, simulated: Hosts, change: dict) -> None:
    host = await simulated(max_concurrent_jobs=0)
    job = await admin.submit()
    patch = {"maxConcurrentJobs": 1, "config": change.get("config")}
    await admin(
        "mutation($id: ID!, $input: HostPatch!) { updateHost(id: $id, input: $input) { __typename } }",
        id=of(host), input={name: value for name, value in patch.items() if value is not None},
    )  # fmt: skip
    await eventually(lambda: _left_the_queue(admin, job["id"]), 5)


async def test_a_resumed_host_wakes_the_queue_at_once(admin: Api, simulated: Hosts) -> None:
    host = await simulated(is_draining=True)
    job = await admin.submit()
    await admin("mutation($id: ID!) { resumeHost(id: $id) { __typename } }", id=of(host))
    await eventually(lambda: _left_the_queue(admin, job["id"]), 5)


async def _left_the_queue(api: Api, job_id: str) -> bool:
    return (await api(WAITING, id=job_id))["status"] != "PENDING"


async def test_a_strategy_may_be_set_for_all(admin: Api, simulated: Hosts, settings: object) -> None:
    settings.CONTAINER_MANAGER = settings.CONTAINER_MANAGER.model_copy(update={"default_strategy": "packed"})
    await simulated()
    (default,) = await plan(admin, {})
    (chosen,) = await plan(admin, {"strategy": "WEIGHTED"})
    assert (default["strategy"], chosen["strategy"]) == ("PACKED", "WEIGHTED")


async def test_a_batch_of_ten_thousand_is_one_transaction(admin: Api, simulated: Hosts) -> None:
    for _ in range(3):
        await simulated(max_concurrent_jobs=5000, config={"accept": "preferred"})
    answers = await admin(
        """mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) {
            ... on ContainerJob { id status } ... on ValidationFailed { fields { field } } } }""",
        inputs=[{"image": "x", "name": f"n{n}", "memoryLimitMb": 64 if n != 7 else 1} for n in range(10_000)],
    )
    assert len(answers) == 10_000
    assert answers[7] == {"fields": [{"field": "inputs.7.memoryLimitMb"}]}
    assert {answer.get("status") for answer in answers} == {"PENDING", None}
    assert len({answer["id"] for answer in answers if "id" in answer}) == 9_999
    assert (await admin(QUEUE))["groups"] == [
        {
            "verdict": "NEVER", "jobs": 9_999, "rejections": [{"code": "EXECUTOR_TYPE", "hosts": 3}],
            "oldestSubmittedAt": (await admin(QUEUE))["oldestSubmittedAt"],
        }
    ]  # fmt: skip


async def test_a_plan_larger_than_the_fleet_says_what_would_help(admin: Api, simulated: Hosts) -> None:
    await simulated(name="one", max_concurrent_jobs=1)
    placed, refused, other = await plan(admin, {}, {}, {"memoryLimitMb": 64})
    assert (placed["__typename"], refused["__typename"]) == ("Placement", "RoutingRefused")
    for entry in (refused, other):
        assert [s["message"] for s in entry["suggestions"]] == ["Raise maxConcurrentJobs of host one to 2."]


async def test_a_plan_keeps_what_is_wrong_with_each_job(admin: Api, simulated: Hosts) -> None:
    bad, gone = await plan(admin, {"image": "NOT AN IMAGE"}, {}, assume=[{"hostId": to_global("ExecutorHost", 999)}])
    assert (bad["__typename"], gone["__typename"]) == ("ValidationFailed", "NotFound")


async def test_a_plan_shows_no_more_hosts_than_it_can(admin: Api, simulated: Hosts) -> None:
    await simulated(max_concurrent_jobs=5000)
    error = await admin.error(PLAN.replace("first: 2", "first: 3"), jobs=[{"image": "x"}] * 1000)
    assert error["message"] == "first: must be from 0 to 2."


async def test_a_job_in_its_back_off_waits_for_no_check(admin: Api, simulated: Hosts) -> None:
    await simulated(max_concurrent_jobs=0)
    await admin.submit()
    later = await make_job(not_before=timezone.now() + timedelta(hours=1))
    assert (await admin(WAITING, id=to_global("ContainerJob", later.pk)))["waitingOn"] is None


async def test_a_registered_check_is_shown(admin: Api, simulated: Hosts) -> None:
    await simulated()
    odd = checks.Check("LICENCE", lambda _: None, lambda *_: 1, lambda _: "a licence", lambda _: "none")
    checks.register(odd)
    try:
        job = await admin.submit()
    finally:
        checks.CHECKS.remove(odd)
    shown = await admin(
        "query($id: ID!) { job(id: $id) { waitingOn { rejections { code hosts } } "
        "decisions { replay hosts { edges { node { checks { code message } } } } } } }",
        id=job["id"],
    )
    assert shown["waitingOn"]["rejections"] == [{"code": "OTHER", "hosts": 1}]
    (decision,) = shown["decisions"]
    assert decision["replay"] == "OTHER_VERSION"
    last = decision["hosts"]["edges"][0]["node"]["checks"][-1]
    assert (last["code"], last["message"]) == ("OTHER", "LICENCE: recorded by a check that is no longer registered")


async def test_the_page_about_checks_shows_one_that_works(
    admin: Api, simulated: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await simulated(labels={"tier": "urgent"})
    monkeypatch.setattr(checks, "CHECKS", [*checks.CHECKS])
    (shown,) = blocks("checks.md", "python")
    namespace: dict = {}
    exec(shown, namespace)
    namespace["ShopConfig"].ready(None)
    job = await admin.submit(priority=9)
    verdict = await admin(WHY_NOT, job=job["id"], host=of(host))
    (check,) = [check for check in verdict["checks"] if not check["passed"]]
    assert (check["code"], check["verdict"]) == ("OTHER", "NEVER")
    assert "a host for jobs of priority 9; found only jobs of priority 10 or more" in check["message"]
    assert (await admin.submit(priority=10))["host"]


async def test_a_plan_shows_where_waiting_jobs_would_go(admin: Api) -> None:
    (host,) = await make_hosts(1, name="small", max_concurrent_jobs=0)
    waiting = await admin.submit(name="waits")
    query = """query($assume: [HostAssumption!]) { planRouting(jobs: [], assume: $assume) {
        waitingPlaced waiting { hostName reason job { id } } placements { __typename } } }"""
    assert await admin(query) == {"waitingPlaced": 0, "waiting": [], "placements": []}
    plan = await admin(query, assume=[{"hostId": to_global("ExecutorHost", host.pk), "maxConcurrentJobs": 1}])
    assert (plan["waitingPlaced"], plan["placements"]) == (1, [])
    assert plan["waiting"] == [
        {"hostName": "small", "reason": "The only choice; 1 of 1 hosts fit.", "job": {"id": waiting["id"]}}
    ]
    assert (await admin.job(waiting["id"]))["status"] == "PENDING"
