"""Filters and orders of lists, compared with a plain reading of the same rows."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import cycle, pairwise
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from container_manager.models import ContainerJob, QueueRefusal
from container_manager.store import paging
from graphql_api import filters as filters_module
from graphql_api.application import make_application
from graphql_api.filters import JobFilter, JobOrder
from graphql_api.ids import to_global
from tests.api import make_hosts
from tests.client import Api
from tests.factories import ContainerJobFactory, ExecutorHostFactory
from tests.server import serving

START = datetime(2026, 1, 1, tzinfo=UTC)
STATUSES = ["pending", "running", "succeeded", "failed", "cancelled"]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that runs no jobs, so that the rows stay as they are."""
    async with serving(make_application(runs_jobs=False)) as address:
        yield address


def _make_jobs(count: int) -> list[ContainerJob]:
    host = ExecutorHostFactory(name="a-host")
    QueueRefusal.objects.create(class_key="k0", verdict="NOT_NOW", message="", rejections=[["SLOTS", 2], ["CPU", 1]])
    labels: Any = cycle([{}, {"tier": "x"}, {"tier": "y", "odd key.": "1"}, {"0": "x"}])
    made = []
    for at, tags, status in zip(range(count), labels, cycle(STATUSES), strict=False):
        ended = status in {"succeeded", "failed", "cancelled"}
        made.append(
            ContainerJobFactory(
                name=["Train", "eval_50%", "", "trainer"][at % 4],
                image=["busybox:1", "Reg.example/Model"][at % 2],
                labels=tags,
                status=status,
                host=host if at % 3 == 0 and status != "pending" else None,
                executor_type="simulated" if at % 3 == 0 else "",
                exit_code={"succeeded": 0, "failed": 137 if at % 2 else None}.get(status),
                failure="" if status != "failed" else "out_of_memory" if at % 2 else "not_started",
                error="Out of memory." if status == "failed" else "",
                attempt=1 + at % 3,
                priority=at % 3 - 1,
                submitted_by=["ci", "ana"][at % 2],
                submitted_at=START + timedelta(minutes=at),
                started_at=START + timedelta(minutes=at) if ended and at % 4 else None,
                finished_at=START + timedelta(minutes=at, seconds=at % 7) if ended else None,
            )
        )
    for at, job in enumerate(made):
        ContainerJob.objects.filter(pk=job.pk).update(class_key=f"k{at % 2}")
    return list(ContainerJob.objects.select_related("host").order_by("pk"))


moments = st.sampled_from([START + timedelta(minutes=at) for at in (0, 3, 7, 100)])
LEAVES: dict[str, tuple[st.SearchStrategy[Any], Any]] = {
    "name": (st.sampled_from(["Train", "train", ""]), lambda job, value: job.name == value),
    "host_name": (
        st.sampled_from(["a-host", "b"]),
        lambda job, value: job.host is not None and job.host.name == value,
    ),
    "name_contains": (st.sampled_from(["TRAIN", "_", "%", ""]), lambda job, v: v.lower() in job.name.lower()),
    "image_contains": (st.sampled_from(["reg.", "X:"]), lambda job, value: value.lower() in job.image.lower()),
    "status": (
        st.lists(st.sampled_from(STATUSES), max_size=2),
        lambda job, value: job.status in value,
    ),
    "labels": (
        st.sampled_from(
            [{"tier": "x"}, {"tier": ["x", "y"]}, {"0": "x"}, {"tier": "y", "odd key.": "1"}, {"tier": []}]
        ),
        lambda job, value: all(
            job.labels.get(name) in (wanted if isinstance(wanted, list) else [wanted]) for name, wanted in value.items()
        ),
    ),
    "submitted_after": (moments, lambda job, value: job.submitted_at > value),
    "submitted_before": (moments, lambda job, value: job.submitted_at < value),
    "finished_after": (moments, lambda job, value: job.finished_at is not None and job.finished_at > value),
    "finished_before": (moments, lambda job, value: job.finished_at is not None and job.finished_at < value),
    "min_duration_seconds": (st.sampled_from([0.0, 2.5, 3.0]), lambda job, value: _ran(job) >= value),
    "max_duration_seconds": (st.sampled_from([0.0, 3.0]), lambda job, value: 0 <= _ran(job) <= value),
    "exit_code": (st.sampled_from([[0], [137, 0], [1], []]), lambda job, value: job.exit_code in value),
    "failure": (st.sampled_from([["out_of_memory"], ["not_started", "timeout"]]), lambda job, v: job.failure in v),
    "error_contains": (st.just("MEMORY"), lambda job, value: value.lower() in job.error.lower()),
    "min_attempt": (st.sampled_from([0, 2]), lambda job, value: job.attempt >= value),
    "submitted_by": (st.just("ci"), lambda job, value: job.submitted_by == value),
    "waiting_on": (
        st.sampled_from([[filters_module.CheckCode.SLOTS], [filters_module.CheckCode.MEMORY], []]),
        lambda job, value: (
            job.status == "pending" and job.class_key == "k0" and filters_module.CheckCode.SLOTS in value
        ),
    ),
}


def _ran(job: ContainerJob) -> float:
    if job.started_at is None or job.finished_at is None:
        return -1
    return (job.finished_at - job.started_at).total_seconds()


leaf = st.sampled_from(sorted(LEAVES)).flatmap(lambda name: LEAVES[name][0].map(lambda value: {name: value}))
trees = st.recursive(
    st.lists(leaf, min_size=1, max_size=2).map(lambda parts: {k: v for part in parts for k, v in part.items()}),
    lambda inner: st.tuples(leaf, st.sampled_from(["AND", "OR", "NOT"]), inner).map(
        lambda parts: {**parts[0], parts[1]: parts[2]}
    ),
    max_leaves=3,
)


def _matches(job: ContainerJob, tree: dict[str, Any]) -> bool:
    found = all(LEAVES[name][1](job, value) for name, value in tree.items() if name in LEAVES)
    if "AND" in tree:
        found = found and _matches(job, tree["AND"])
    if "NOT" in tree:
        found = found and not _matches(job, tree["NOT"])
    if "OR" in tree:
        found = found or _matches(job, tree["OR"])
    return found


def _as_input(tree: dict[str, Any]) -> JobFilter:
    return JobFilter(**{name: _as_input(v) if name in {"AND", "OR", "NOT"} else v for name, v in tree.items()})


@pytest.fixture
def jobs(db: None) -> list[ContainerJob]:
    return _make_jobs(24)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees, order=st.sampled_from(JobOrder))
@example(tree={"status": ["running"], "OR": {"status": ["failed"]}}, order=JobOrder.SUBMITTED_DESC)
@example(tree={"submitted_after": START + timedelta(days=300), "OR": {"name": "Train"}}, order=JobOrder.SUBMITTED_ASC)
def test_a_filter_finds_what_a_plain_reading_finds(
    jobs: list[ContainerJob], tree: dict[str, Any], order: JobOrder
) -> None:
    search = filters_module.search(_as_input(tree), order, None)
    has_order = {"FINISHED": lambda job: job.finished_at, "QUEUE": lambda job: job.status == "pending"}
    among = has_order.get(order.name.partition("_")[0], lambda job: True)
    wanted = {job.pk for job in jobs if among(job) and _matches(job, tree)}
    with patch.object(paging, "PORTION", 5), patch.object(paging, "SEARCH_SECONDS", 60):
        found = paging.page(search, None, 100).rows
        assert paging.count(search) == (len(wanted), True)
    assert {job.pk for job in found} == wanted
    assert len(found) == len(wanted)


PAGE = """query($order: JobOrder!, $filters: JobFilter, $first: Int, $after: String, $last: Int, $before: String) {
    jobs(orderBy: $order, filters: $filters, first: $first, after: $after, last: $last, before: $before) {
        edges { cursor node { id priority finishedAt submittedAt } }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount { count isExact } } }"""


@pytest.mark.parametrize("filters", [None, {"labels": {"tier": ["x", "y"]}}])
@pytest.mark.parametrize("order", [order.name for order in JobOrder])
async def test_every_order_pages_both_ways(admin: Api, order: str, filters: Any) -> None:
    await sync_to_async(_make_jobs)(48)

    async def walk(size: str, cursor: str, position: str, more: str) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = []
        arguments: dict[str, Any] = {size: 2}
        while True:
            page = await admin(PAGE, order=order, filters=filters, **arguments)
            new = [edge["node"] for edge in page["edges"]]
            nodes = [*new, *nodes] if size == "last" else [*nodes, *new]
            if not page["pageInfo"][more]:
                assert page["totalCount"] == {"count": len(nodes), "isExact": True}
                return nodes
            arguments[cursor] = page["pageInfo"][position]

    forward = await walk("first", "after", "endCursor", "hasNextPage")
    assert len(forward) > 2
    assert await walk("last", "before", "startCursor", "hasPreviousPage") == forward
    keys = {
        "SUBMITTED": lambda node: node["submittedAt"],
        "FINISHED": lambda node: node["finishedAt"],
        "QUEUE": lambda node: (-node["priority"], node["submittedAt"]),
    }
    key = keys[order.partition("_")[0]]
    pairs = [(key(one), key(other)) for one, other in pairwise(forward)]
    assert all(one >= other if order.endswith("DESC") else one <= other for one, other in pairs)


async def test_a_search_that_takes_long_is_continued_by_the_next_page(admin: Api) -> None:
    await sync_to_async(_make_jobs)(24)
    with patch.object(paging, "PORTION", 4), patch.object(paging, "SEARCH_SECONDS", -1):
        page = await admin(PAGE, order="SUBMITTED_DESC", filters={"minAttempt": 4}, first=5)
        assert page["edges"] == []
        assert page["pageInfo"]["hasNextPage"]
        assert page["totalCount"] == {"count": 0, "isExact": False}
        pages = 1
        while page["pageInfo"]["hasNextPage"]:
            arguments = {"first": 5, "after": page["pageInfo"]["endCursor"]}
            page = await admin(PAGE, order="SUBMITTED_DESC", filters={"minAttempt": 4}, **arguments)
            pages += 1
    assert (pages, page["edges"]) == (7, [])


async def test_an_empty_page_ends_where_it_began(admin: Api) -> None:
    made = await sync_to_async(_make_jobs)(3)
    page = await admin(PAGE, order="SUBMITTED_DESC", first=0, after=str(made[-1].pk))
    assert page["pageInfo"]["endCursor"] == str(made[-1].pk)
    assert page["pageInfo"]["hasNextPage"]


async def test_jobs_of_a_time_are_found_among_many(admin: Api) -> None:
    made = await sync_to_async(_make_jobs)(24)
    late = ContainerJob.objects.filter(pk__in=[job.pk for job in made[20:]])
    await sync_to_async(late.update)(submitted_at=START + timedelta(days=9))
    times = {"submittedAfter": "2026-01-01T00:02:30Z", "submittedBefore": "2026-01-01T00:05:00"}
    page = await admin(PAGE, order="SUBMITTED_ASC", filters=times)
    assert [edge["node"]["submittedAt"][14:16] for edge in page["edges"]] == ["03", "04"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('after: "1_2"', "after: '1_2' is not a cursor of this order."),
        ('orderBy: FINISHED_DESC, after: "7"', "after: '7' is not a cursor of this order."),
        ('orderBy: QUEUE, after: "x_7"', "after: 'x_7' is not a cursor of this order."),
        ('orderBy: QUEUE, after: "99999999999999999999_7"', "is not a cursor of this order."),
        ('before: "7"', "give first and after, or last and before"),
        ("filters: {minDurationSeconds: -1}", "minDurationSeconds: must be from 0 to"),
        ("filters: {maxDurationSeconds: 1e300}", "maxDurationSeconds: must be from 0 to"),
    ],
)
async def test_a_bad_order_or_filter_is_named(admin: Api, arguments: str, message: str) -> None:
    error = await admin.error(f"{{ jobs({arguments}) {{ edges {{ cursor }} }} }}")
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert message in error["message"]


async def test_jobs_on_a_host_or_of_one_status_are_found_by_their_index(admin: Api) -> None:
    (host,) = await make_hosts(1)
    filters: Any = [{"hostId": to_global("ExecutorHost", host.pk)}, {"status": ["FAILED"]}]
    for given_filters in filters:
        with patch.object(paging, "PORTION", 0):  # a search in portions would fail
            assert (await admin(PAGE, order="SUBMITTED_DESC", filters=given_filters))["edges"] == []
