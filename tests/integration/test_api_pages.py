"""What a frontend's pages are made of: timelines, who did what, lists of decisions, events and hosts, tokens."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from container_manager.domain.kinds import Role
from container_manager.models import ApiToken, AuditEntry, ContainerJob, ExecutorHost, JobAttempt
from graphql_api.ids import to_global
from tests.api import CANCEL, make_hosts, make_job
from tests.client import Api
from tests.eventually import eventually
from tests.factories import ExecutorHostFactory
from tests.server import make_token

TIMELINE = """query($id: ID!) { job(id: $id) { submittedBy cancelledBy failure queuedSeconds runSeconds queuedAt routedAt
    timeline { step attempt hostName actor message at } } }"""
ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}


async def ended(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        now = await api.job(job["id"])
        return now if now["status"] in ENDED else None

    return await eventually(found, 30)


async def test_a_timeline_tells_every_step_and_who_caused_it(admin: Api, sim: dict) -> None:
    job = await admin.submit(command=["sleep 0; exit 3"])
    await ended(admin, job)
    await admin("mutation($id: ID!) { retryJob(id: $id) { __typename } }", id=job["id"])

    async def second() -> dict[str, Any] | None:
        found = await admin(TIMELINE, id=job["id"])
        return found if [entry["step"] for entry in found["timeline"]].count("FAILED") == 2 else None

    found = await eventually(second, 30)
    steps = [(entry["step"], entry["attempt"]) for entry in found["timeline"]]
    assert steps == [
        ("SUBMITTED", 1), ("ROUTED", 1), ("LAUNCHED", 1), ("STARTED", 1), ("FAILED", 1),
        ("QUEUED", 2), ("ROUTED", 2), ("LAUNCHED", 2), ("STARTED", 2), ("FAILED", 2),
    ]  # fmt: skip
    times = [entry["at"] for entry in found["timeline"]]
    assert times == sorted(times)
    assert found["timeline"][0]["actor"] == found["submittedBy"] != ""
    assert found["timeline"][1]["hostName"] == "sim"
    assert found["timeline"][-1]["message"] == "Exit code 3."
    assert found["failure"] == "EXIT_CODE"
    assert 0 <= found["queuedSeconds"] < 30
    assert 0 <= found["runSeconds"] < 30


async def test_who_cancelled_a_job_is_known(admin: Api) -> None:
    job = await admin.submit(image="x")
    assert (await admin(CANCEL, id=job["id"]))["status"] == "CANCELLED"
    found = await admin(TIMELINE, id=job["id"])
    me = await admin("{ viewer { name role expiresAt } }")
    assert (found["cancelledBy"], found["failure"]) == (me["name"], None)
    assert {entry["step"]: entry["actor"] for entry in found["timeline"]}["CANCELLED"] == me["name"]
    events = await admin("{ routingEvents(last: 10) { edges { node { kind actor attempt } } } }")
    actors = {edge["node"]["kind"]: edge["node"]["actor"] for edge in events["edges"]}
    assert (actors["JOB_SUBMITTED"], actors["JOB_REFUSED"], actors["JOB_CANCELLED"]) == (me["name"], "", me["name"])
    assert {edge["node"]["attempt"] for edge in events["edges"]} == {1}


async def test_jobs_of_earlier_versions_have_a_timeline(admin: Api) -> None:
    job = await make_job(status="failed", finished_at=timezone.now() + timedelta(hours=1), attempt=2)
    await sync_to_async(JobAttempt.objects.create)(job_id=job.pk, attempt=1, status="failed", host_name="gone")
    found = await admin(TIMELINE, id=to_global("ContainerJob", job.pk))
    assert [entry["step"] for entry in found["timeline"]] == ["SUBMITTED", "FAILED"]
    assert found["queuedSeconds"] is None


async def test_an_attempt_is_a_node(admin: Api) -> None:
    job = await make_job(status="failed", attempt=2)
    await sync_to_async(JobAttempt.objects.create)(job_id=job.pk, attempt=1, status="failed", host_name="gone")
    attempts = (await admin("{ jobs { edges { node { attempts { id attempt } } } } }"))["edges"][0]["node"]["attempts"]
    query = "query($id: ID!) { node(id: $id) { id ... on JobAttempt { attempt hostName } } }"
    for attempt in attempts:
        found = await admin(query, id=attempt["id"])
        assert (found["id"], found["attempt"]) == (attempt["id"], attempt["attempt"])
    assert await admin(query, id=to_global("JobAttempt", job.pk, 7)) is None
    assert await admin(query, id=to_global("JobAttempt", 4711, 1)) is None
    for wrong in (to_global("JobAttempt", job.pk), to_global("ContainerJob", job.pk, 1)):
        assert "is not an id" in (await admin.error(query, id=wrong))["message"]


DECISIONS = """query($filters: RoutingDecisionFilter, $last: Int, $first: Int) {
    routingDecisions(filters: $filters, last: $last, first: $first) { edges { node { reason host { name } } } } }"""


async def test_decisions_are_filtered_and_read_from_both_ends(admin: Api, sim: dict) -> None:
    before = timezone.now().isoformat()
    await admin.submit(name="fits")
    await admin.submit(memoryLimitMb=2**31 - 1, hostSelector={"gpu": "yes"})

    async def hosts(**filters: Any) -> list[str]:
        found = await admin(DECISIONS, filters=filters)
        return [(edge["node"]["host"] or {"name": ""})["name"] for edge in found["edges"]]

    assert await hosts() == ["", "sim"]
    assert await hosts(refused=True) == [""]
    assert await hosts(refused=False) == ["sim"]
    assert await hosts(rejection=["SELECTOR", "CPU"]) == [""]
    assert await hosts(rejection=["CPU"]) == []
    assert await hosts(hostId=sim["id"]) == ["sim"]
    assert await hosts(decidedAfter=before) == ["", "sim"]
    assert await hosts(decidedBefore=before) == []
    oldest = await admin(DECISIONS, last=1)
    assert [edge["node"]["host"]["name"] for edge in oldest["edges"]] == ["sim"]


async def test_the_newest_events_are_read_from_the_end(admin: Api, sim: dict) -> None:
    await admin.submit()
    query = """query($filters: RoutingEventFilter, $last: Int, $before: String) {
        routingEvents(filters: $filters, last: $last, before: $before) {
            edges { cursor node { kind } } pageInfo { hasPreviousPage startCursor } } }"""
    newest = await admin(query, last=1, filters={"kinds": ["HOST_CREATED"]})
    assert [edge["node"]["kind"] for edge in newest["edges"]] == ["HOST_CREATED"]
    page = await admin(query, last=2)
    assert page["pageInfo"]["hasPreviousPage"]
    cursors = [int(edge["cursor"]) for edge in page["edges"]]
    assert cursors == sorted(cursors)
    earlier = await admin(query, last=2, before=page["pageInfo"]["startCursor"])
    assert int(earlier["edges"][-1]["cursor"]) < cursors[0]


HOSTS = """query($order: HostOrder!, $filters: HostFilter, $first: Int, $after: String, $last: Int, $before: String) {
    hosts(orderBy: $order, filters: $filters, first: $first, after: $after, last: $last, before: $before) {
        edges { node { name labelList { name value } } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("CREATED", ["b", "a", "d", "c"]),
        ("NAME", ["a", "b", "c", "d"]),
        ("WEIGHT", ["d", "c", "b", "a"]),
        ("LATENCY", ["a", "c", "b", "d"]),
        ("FREE_SLOTS", ["c", "b", "a", "d"]),
    ],
)
async def test_every_order_of_hosts_pages_both_ways(admin: Api, order: str, wanted: list[str]) -> None:
    # On another node, so that no probe changes a latency.
    config = {"url": "unix:///run/engine.sock", "node": "elsewhere"}
    make = partial(sync_to_async(ExecutorHostFactory), executor_type="docker", config=config)
    busy = await make(name="b", routing_weight=10, max_concurrent_jobs=5, health_latency_ms=7)
    await make(name="a", routing_weight=5, max_concurrent_jobs=3, health_latency_ms=1, labels={"z": "1", "a": "2"})
    await make(name="d", routing_weight=900, max_concurrent_jobs=1)
    await make(name="c", routing_weight=100, max_concurrent_jobs=5, health_latency_ms=2.5)
    await make_job(status="running", host=busy)
    names = lambda page: [edge["node"]["name"] for edge in page["edges"]]  # noqa: E731
    assert names(await admin(HOSTS, order=order)) == wanted
    first = await admin(HOSTS, order=order, first=3)
    rest = await admin(HOSTS, order=order, first=3, after=first["pageInfo"]["endCursor"])
    assert (names(first), names(rest)) == (wanted[:3], wanted[3:])
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    back = await admin(HOSTS, order=order, last=2, before=rest["pageInfo"]["startCursor"])
    assert (names(back), back["pageInfo"]["hasPreviousPage"]) == (wanted[1:3], True)
    assert names(await admin(HOSTS, order=order, last=1)) == wanted[3:]
    assert names(await admin(HOSTS, order=order, filters={"nameContains": "A"})) == ["a"]
    found = await admin(HOSTS, order=order, filters={"labels": {"z": ["1", "5"]}})
    assert found["edges"][0]["node"]["labelList"] == [{"name": "a", "value": "2"}, {"name": "z", "value": "1"}]
    assert names(await admin(HOSTS, order=order, filters={"NOT": {"labels": {"z": "1"}}})) == [
        name for name in wanted if name != "a"
    ]


@pytest.mark.parametrize("cursor", ["x", "5_1", "WyJhIl0=", "WzEsMl0=", "bnVsbA=="])
async def test_a_cursor_of_another_order_is_refused(admin: Api, cursor: str) -> None:
    error = await admin.error(HOSTS, order="NAME", after=cursor)
    assert f"after: '{cursor}' is not a cursor of this order." in error["message"]


async def test_a_host_has_its_jobs_and_decisions(admin: Api, sim: dict) -> None:
    job = await admin.submit(name="mine")
    await ended(admin, job)
    found = await admin(
        """query($id: ID!) { host(id: $id) { createdAt
            jobs(first: 5) { edges { node { name } } totalCount { count } }
            decisions(first: 5) { edges { node { job { name } } } } } }""",
        id=sim["id"],
    )
    assert found["jobs"] == {"edges": [{"node": {"name": "mine"}}], "totalCount": {"count": 1}}
    assert [edge["node"]["job"]["name"] for edge in found["decisions"]["edges"]] == ["mine"]


async def test_admins_manage_tokens(admin: Api, url: str) -> None:
    create = """mutation($name: String!, $role: Role!, $days: Int) { createToken(name: $name, role: $role, expiresInDays: $days) {
        __typename ... on NewApiToken { secret token { id name role expiresAt } } ... on UserError { message }
        ... on ValidationFailed { fields { field message } } } }"""
    made = await admin(create, name="ci", role="OPERATOR", days=30)
    assert made["token"]["role"] == "OPERATOR"
    other = Api(url, made["secret"])
    me = await other("{ viewer { name role expiresAt } }")
    assert (me["name"], me["role"], me["expiresAt"]) == ("ci", "OPERATOR", made["token"]["expiresAt"])
    assert (await other.error("{ tokens { name } }"))["extensions"]["code"] == "FORBIDDEN"
    assert (await admin(create, name="ci", role="VIEWER"))["__typename"] == "Conflict"
    refused = await admin(create, name="x\n", role="VIEWER", days=40_000)
    assert [entry["field"] for entry in refused["fields"]] == ["name", "expiresInDays"]
    assert "ci" in [token["name"] for token in await admin("{ tokens { name role createdAt lastUsedAt } }")]
    revoke = "mutation($id: ID!) { revokeToken(id: $id) { __typename ... on ApiToken { name } } }"
    assert await admin(revoke, id=made["token"]["id"]) == {"__typename": "ApiToken", "name": "ci"}
    assert (await admin(revoke, id=made["token"]["id"]))["__typename"] == "NotFound"
    await eventually(lambda: _is_refused(other), 5)
    await other.http.aclose()
    entries = [row async for row in AuditEntry.objects.order_by("pk").values_list("action", "target", "result")]
    assert ("token create", "ci", "DONE") in entries
    assert ("token revoke", "ci", "DONE") in entries
    assert not await ApiToken.objects.filter(name="ci").aexists()


async def _is_refused(api: Api) -> bool:
    answer = await api.post("{ eventCursor }")
    return answer.get("errors", [{}])[0].get("extensions", {}).get("code") == "UNAUTHENTICATED"


async def test_a_viewer_sees_when_its_token_expires(url: str) -> None:
    secret = await make_token(Role.VIEWER)
    until = timezone.now() + timedelta(days=1)
    await ApiToken.objects.aupdate(expires_at=until)
    api = Api(url, secret)
    found = await api("{ viewer { role expiresAt } }")
    await api.http.aclose()
    assert (found["role"], found["expiresAt"][:19]) == ("VIEWER", until.isoformat()[:19])


async def test_a_job_that_waits_too_long_says_so(admin: Api) -> None:
    await make_hosts(1, is_draining=True)
    job = await admin.submit(queueTimeoutSeconds=1)
    await ended(admin, job)
    assert (await admin(TIMELINE, id=job["id"]))["failure"] == "QUEUE_TIMEOUT"
    row = await ContainerJob.objects.aget()
    assert (row.host_id, await ExecutorHost.objects.acount()) == (None, 1)


async def test_tokens_and_audit_entries_are_nodes_for_admins(admin: Api, url: str) -> None:
    node = "query($id: ID!) { node(id: $id) { id ... on ApiToken { name } ... on AuditEntry { action } } }"
    token = (await admin("{ tokens { id name } }"))[0]
    assert await admin(node, id=token["id"]) == token
    await admin("mutation { checkHealth { id } }")
    entry = (await admin("{ auditLog { edges { node { id action } } } }"))["edges"][0]["node"]
    assert await admin(node, id=entry["id"]) == entry
    other = Api(url, await make_token(Role.OPERATOR))
    for found in (token, entry):
        assert (await other.error(node, id=found["id"]))["extensions"]["code"] == "FORBIDDEN"
    await other.http.aclose()
