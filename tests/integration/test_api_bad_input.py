"""What the API says of bad input."""

import asyncio
import json
import threading
from unittest.mock import patch

import httpx
import pytest
import websockets

from container_manager.domain.kinds import Role
from container_manager.models import ExecutorHost
from container_manager.store import threads
from graphql_api import operation as operations
from graphql_api.ids import to_global
from graphql_api.types.hosts import ExecutorHost as ExecutorHostType
from tests.api import (
    SIMULATED,
    UPDATE_HOST,
    connect,
)
from tests.client import CREATE_HOST, SUBMIT, Api
from tests.configured import configure
from tests.server import make_token


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ('{ job(id: "nonsense") { id } }', "id: 'nonsense' is not an id."),
        (
            f'{{ job(id: "{to_global("ExecutorHost", 1)}") {{ id }} }}',
            "an id of the type ExecutorHost, not ContainerJob",
        ),
        (f'{{ node(id: "{to_global("Teapot", 1)}") {{ id }} }}', "there is no type Teapot"),
        (f'{{ node(id: "{to_global("ContainerJob", 2**70)}") {{ id }} }}', "is not an id"),
        ('{ jobs(after: "x") { edges { cursor } } }', "after: 'x' is not a cursor."),
        ("{ jobs(first: 101) { edges { cursor } } }", "first: must be from 0 to 100."),
        ("{ jobs(first: -1) { edges { cursor } } }", "first: must be from 0 to 100."),
        ("{ jobs(first: 1, last: 1) { edges { cursor } } }", "give first and after, or last and before"),
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
            "config.launch_mss: is not a setting of this executor type.",
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
        assert answer.headers["content-type"] == "application/graphql-response+json"
    await admin(CREATE_HOST, input={"name": "h", "executorType": "SIMULATED"})
    body = {"query": 'subscription { routingEvents(after: "0") { kind } }'}
    async with admin.http.stream("POST", "/graphql", json=body, headers=BOTH) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        first = await anext(stream.aiter_text())
    assert first.startswith("event: next\ndata: {")
    assert "\r" not in first


async def test_a_subscription_over_plain_http_says_how_to_do_it(admin: Api) -> None:
    answer = await admin.http.post("/graphql", json={"query": "subscription { routingEvents { cursor } }"})
    assert answer.status_code == 400
    assert "text/event-stream" in answer.json()["errors"][0]["message"]


FIELDS = "fields { name args { name type { name kind } } type { name kind } }"


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
    hidden = "{ jobs(first: 100) { ...{ edges { node { decisions { hosts(first: 100) { edges { node { checks { code } } } } } } } } } }"
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


async def test_an_error_names_its_field_once(admin: Api) -> None:
    config = {"ulr": "x", "network": "host"}
    refused = await admin(CREATE_HOST, input={"name": "x", "executorType": "DOCKER", "config": config})
    assert refused["message"].count("config.ulr") == 1
    assert "config.network: must be the name of a network" in refused["message"]


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


# ------------------------------------------------------------------ limits before work

PLAN = (
    "query($j: [JobInput!]!, $a: [HostAssumption!]) { planRouting(jobs: $j, assume: $a) { placements { __typename } } }"
)
MANY = [{"image": "a"}] * 20_000


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (PLAN, {"j": MANY}),
        (PLAN, {"j": [None] * 20_000}),
        (PLAN, {"j": [], "a": [{"hostId": "x"}] * 20_000}),
        (PLAN, {"j": [{"image": "a", "command": ["x"] * 20_000}]}),
        ("query($f: JobFilter) { jobs(filters: $f) { edges { cursor } } }", {"f": {"status": ["RUNNING"] * 20_000}}),
        (SUBMIT, {"input": {"image": "a", "command": ["x"] * 20_000}}),
        ("{ eventCursor }", {"unused": [[]] * 20_000}),
    ],
    ids=["jobs", "nulls", "assumptions", "command", "enums", "one job", "unused"],
)
async def test_variables_are_counted_before_they_are_read(admin: Api, query: str, variables: dict) -> None:
    error = await admin.error(query, **variables)
    assert error["message"] == "variables: they have more than 10000 values. Send fewer at a time."
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_batch_of_jobs_may_be_large(admin: Api, sim: dict) -> None:
    query = "mutation($i: [JobInput!]!) { submitJobs(inputs: $i) { __typename } }"
    answer = await admin(query, i=[{"image": "a", "command": ["x"] * 20}] * 1000)
    assert [result["__typename"] for result in answer] == ["ContainerJob"] * 1000


@pytest.mark.parametrize("size", [2_000_000, 20_000_000])
async def test_a_viewer_sends_no_large_body(url: str, size: int) -> None:
    viewer = Api(url, await make_token(Role.VIEWER))
    body = {"query": "{ eventCursor }", "variables": {"x": "y" * size}}
    try:
        answer = await viewer.http.post("/graphql", json=body)
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the server has closed the connection before the body was sent
    assert (await viewer("{ eventCursor }")).isdigit()
    await viewer.http.aclose()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("{ " + " ".join(f"a{n}: __schema {{ types {{ {FIELDS} }} }}" for n in range(90)) + " }", "its cost"),
        (
            "query($j: [JobInput!]!) { "
            + " ".join(f"a{n}: planRouting(jobs: $j) {{ placements {{ __typename }} }}" for n in range(20))
            + " }",
            "its cost",
        ),
        (
            "query($j: [JobInput!]!) { "
            + 'a0: planRouting(jobs: [{image: "a"}]) { ...F } '
            + " ".join(f"a{n}: planRouting(jobs: $j) {{ ...F }}" for n in range(1, 90))
            + " } fragment F on RoutingPlan { placements { __typename } }",
            "its cost",
        ),
        (
            "query($j: [JobInput!]!) { "
            + " ".join(f"a{n}: planRouting(jobs: $j) {{ __typename }}" for n in range(99))
            + " }",
            "its cost",
        ),
        ("{ jobs(first: " + "9" * 5000 + ") { edges { cursor } } }", "a number has 5000 digits"),
        ("{ jobs(filters: " + "{NOT: " * 20 + "{}" + "}" * 20 + ") { edges { cursor } } }", "at most 16 can be combined"),
        ("{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }", "depth"),
    ],
    ids=["schemas", "plans", "plans of a fragment", "plans without a result", "digits", "filters", "introspection in depth"],
)  # fmt: skip
async def test_what_costs_too_much_is_refused(admin: Api, query: str, sentence: str) -> None:
    answer = await admin.post(query, j=[{"image": "a"}] * 900)
    assert any(sentence in error["message"] for error in answer["errors"]), answer
    assert "INTERNAL" not in json.dumps(answer)


async def test_fields_of_the_same_name_are_not_compared_without_end(admin: Api) -> None:
    same = "jobs { edges { cursor } } " * 400
    answer = await admin.post(f"{{ {same} }}")
    assert len(answer["errors"]) < 5
    assert len(json.dumps(answer)) < 5000


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("query($n: String) { host(name: $n) { id } }", {"n": "a\0b"}),
        ('{ host(name: "a\\u0000b") { id } }', {}),
        ("query($n: String) { capacity(region: $n) { hosts } }", {"n": "\0"}),
        (
            "query($f: JobFilter) { jobs(filters: $f) { edges { cursor } } }",
            {"f": {"name": {"exact": "\0"}, "labels": {"a": "b"}}},
        ),
        ("query($f: JobFilter) { jobs(filters: $f) { edges { cursor } } }", {"f": {"labels": {"a": "\0"}}}),
        ("query($f: JobFilter) { jobs(filters: $f) { edges { cursor } } }", {"f": {"labels": {"a\0": "b"}}}),
        ('{ jobs(filters: {labels: {a: "\\u{0}"}}) { edges { cursor } } }', {}),
    ],
)
async def test_a_nul_character_is_refused(admin: Api, query: str, variables: dict) -> None:
    error = await admin.error(query, **variables)
    assert "must not contain a NUL character" in error["message"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("name", ["$n", '"a\\u0000b"'])
async def test_a_mutation_that_does_not_run_allows_no_nul_character(admin: Api, name: str) -> None:
    several = (
        f'mutation M {{ cancelJob(id: "x") {{ __typename }} }} query Q($n: String) {{ host(name: {name}) {{ id }} }}'
    )
    several = several.replace("($n: String)", "") if name != "$n" else several
    body = {"query": several, "variables": {"n": "a\0b"}, "operationName": "Q"}
    answer = await admin.http.post("/graphql", json=body)
    assert "must not contain a NUL character" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("name", ["2024", "3000000000", "-1", 'a"b', "a.b", "%s"])
async def test_jobs_are_found_by_labels_of_any_name(admin: Api, sim: dict, name: str) -> None:
    job = await admin.submit(labels={name: "x"})
    query = "query($f: JobFilter) { jobs(filters: $f) { edges { node { id } } } }"
    assert (await admin(query, f={"labels": {name: "x"}}))["edges"] == [{"node": {"id": job["id"]}}]
    assert (await admin(query, f={"labels": {name: "y"}}))["edges"] == []


@pytest.mark.parametrize("values", ["[]," * 600_001 + "[]", '"",' * 700_000 + '""'], ids=["lists", "texts"])
async def test_a_body_of_too_many_values_is_not_read(admin: Api, values: str) -> None:
    body = f'{{"query": "{{ eventCursor }}", "variables": {{"x": [{values}]}}}}'
    answer = await admin.http.post("/graphql", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "more than 300000 values. Send fewer at a time." in answer.text


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_date_outside_of_the_calendar_is_refused(admin: Api, moment: str) -> None:
    query = "query($m: DateTime) { jobs(filters: {submittedBefore: $m}) { edges { cursor } } }"
    error = await admin.error(query, m=moment)
    assert error["extensions"].get("code") != "INTERNAL"


@pytest.mark.parametrize(
    "config",
    [{"node": "n" * 300}, {"node": "a\0b"}, {"url": "tcp://" + "h" * 600}, {"mounts": {"/a": {"source": "/\0"}}}],
)
async def test_a_config_that_no_database_keeps_is_refused(admin: Api, config: dict) -> None:
    refused = await admin(CREATE_HOST, input={"name": "x", "executorType": "DOCKER", "config": config})
    assert refused["__typename"] == "ValidationFailed"


@pytest.mark.parametrize(
    "job",
    [
        {"command": ["x" * 131_072]},
        {"environment": [{"name": "A", "value": "x" * 131_072}]},
        {"command": ["x" * 100_000] * 11},
        {"tmpfs": [{"path": "//proc", "sizeMb": 1}]},
        {"tmpfs": [{"path": "/./sys/x", "sizeMb": 1}]},
        {"tmpfs": [{"path": "/dev//shm", "sizeMb": 1}]},
    ],
    ids=["argument", "variable", "all texts", "proc", "sys", "shm"],
)
async def test_a_job_is_bounded(admin: Api, job: dict) -> None:
    refused = await admin(SUBMIT, input={"image": "a", **job})
    assert refused["__typename"] == "ValidationFailed"


async def test_a_document_with_several_operations_needs_a_name(admin: Api) -> None:
    several = "query a { eventCursor } mutation b { checkHealth { id } }"
    for operation in (None, "a", None):
        answer = await admin.http.post("/graphql", json={"query": several, "operationName": operation})
        refused = "several operations" in answer.text
        assert refused == (operation is None)


async def test_each_result_of_a_large_batch_is_in_its_place(admin: Api, sim: dict) -> None:
    inputs = [{"image": "a", "name": str(at)} | ({} if at % 100 else {"priority": 10**6}) for at in range(1000)]
    query = """mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) {
        __typename ... on ContainerJob { id name } ... on ValidationFailed { fields { field } } } }"""
    found = await admin(query, inputs=inputs)
    for at, result in enumerate(found):
        if at % 100:
            assert result["name"] == str(at)
        else:
            assert result["fields"] == [{"field": f"inputs.{at}.priority"}]
    ids = [result["id"] for result in found if "id" in result]
    routed = await admin("mutation($ids: [ID!]!) { routeJobs(ids: $ids) { __typename } }", ids=ids)
    assert [one["__typename"] for one in routed].count("Conflict") == 10
    assert len(routed) == len(ids)


async def test_an_invalid_value_in_a_large_batch_is_named(admin: Api) -> None:
    inputs: list = [{"image": "a", "name": "n", "priority": 1}] * 999 + [{"image": 5}]
    error = await admin.error(
        "mutation($inputs: [JobInput!]!) { submitJobs(inputs: $inputs) { __typename } }", inputs=inputs
    )
    assert (
        "'$inputs' has invalid value at [999].image: String cannot represent a non string value: 5" in error["message"]
    )


@pytest.mark.parametrize("operation", [None, "Q", "other"])
async def test_a_long_document_that_cannot_be_parsed_is_refused(admin: Api, operation: str | None) -> None:
    body = {"query": "query Q { " + "eventCursor " * 500 + "(", "operationName": operation}
    answer = await admin.http.post("/graphql", json=body)
    assert answer.json()["errors"][0]["message"].startswith("Syntax Error: Expected Name")


HEAVY = (
    "{ "
    + " ".join(f"a{at}: hosts(first: 100) {{ edges {{ node {{ name health {{ status }} }} }} }}" for at in range(20))
    + " }"
)


@pytest.mark.parametrize(("query", "is_aside"), [(HEAVY, True), ("{ hosts { edges { node { name } } } }", False)])
async def test_heavy_queries_run_aside(
    admin: Api, sim: dict, query: str, is_aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads_of_reads = set()
    of = ExecutorHostType.of.__func__

    def seen(cls: type, row: ExecutorHost) -> ExecutorHostType:
        threads_of_reads.add(threading.current_thread().name)
        return of(cls, row)

    monkeypatch.setattr(ExecutorHostType, "of", classmethod(seen))
    answer = await admin.post(query)
    assert "errors" not in answer
    assert all(connection["edges"][0]["node"]["name"] == "sim" for connection in answer["data"].values())
    assert threads_of_reads == {"heavy-queries" if is_aside else "MainThread"} or not is_aside
    assert ("heavy-queries" in threads_of_reads) == is_aside


async def test_a_heavy_query_is_given_up_in_time(admin: Api, sim: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphql_api.limits.OPERATION_SECONDS", 0.3)
    released = threading.Event()

    def slow(*_: object, **__: object) -> list:
        released.wait(10)
        return []

    monkeypatch.setattr("container_manager.store.hosts.page", slow)
    try:
        assert (await admin.error(HEAVY))["extensions"]["code"] == "TIMEOUT"
    finally:
        released.set()


async def test_answers_have_only_so_much_text_together(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await admin.submit(command=["x" * 30_000])
    query = "{ jobs { edges { node { command } } } }"
    assert len((await admin(query))["edges"]) == 1
    monkeypatch.setattr("graphql_api.operation._total.unsent", lambda: 10**9)
    error = await admin.error(query)
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert "try again later" in error["message"]
    assert len((await admin("{ jobs { edges { node { image } } } }"))["edges"]) == 1
    monkeypatch.setattr("graphql_api.operation._total.unsent", lambda: 0)
    assert len((await admin(query))["edges"]) == 1
    assert operations._total._characters == 0


@pytest.mark.parametrize(
    "query",
    [
        "{ jobs { edges { node { a: labels b: labels c: labels d: labels } } } }",
        "{ jobs { edges { node { command ...A } } } } fragment A on ContainerJob { x: command y: command z: command }",
        "{ hosts { edges { node { a: config b: config c: config d: config } } } }",
        "{ hosts { edges { node { a: labels b: labels c: labels d: labels } } } }",
    ],
)
async def test_a_text_counts_as_often_as_it_is_shown(admin: Api, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphql_api.operation.LARGEST_ANSWER", 15_000)
    labels = {f"{at}{'k' * 95}": "v" * 100 for at in range(25)}
    await admin(CREATE_HOST, input=SIMULATED | {"labels": labels})
    config = {"url": "unix:///nowhere.sock", "mounts": {f"/{at}{'k' * 95}": {"source": "/x"} for at in range(50)}}
    made = await admin(CREATE_HOST, input={"name": "d", "executorType": "DOCKER", "config": config})
    assert made["__typename"] == "ExecutorHost", made
    await admin.submit(command=["x" * 5_000], labels=labels)
    answer = await admin.post(query)
    assert "characters of text" in answer["errors"][0]["message"]


async def test_checking_many_hosts_at_once_is_refused(admin: Api) -> None:
    query = "mutation($ids: [ID!]) { checkHealth(hostIds: $ids) { id } }"
    assert "hostIds: 1001 are too many" in (await admin.error(query, ids=["x"] * 1001))["message"]


async def test_a_long_id_is_not_repeated_in_full(admin: Api) -> None:
    assert len((await admin.error("query($i: ID!) { job(id: $i) { id } }", i="x" * 100_000))["message"]) < 200


async def test_an_answer_has_only_so_much_text(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphql_api.operation.LARGEST_ANSWER", 100_000)
    jobs = [await admin.submit(command=["x" * 30_000]) for _ in range(3)]
    page = "query($n: Int) { jobs(first: $n) { edges { node { command } } } }"
    assert len((await admin(page, n=3))["edges"]) == 3
    several = "{ a: jobs { edges { node { command } } } b: jobs { edges { node { command } } } }"
    by_id = "{ " + " ".join(f'j{n}: job(id: "{jobs[0]["id"]}") {{ command }}' for n in range(4)) + " }"
    for query in (several, by_id):
        answer = await admin.post(query)
        assert "more than 100000 characters of text" in answer["errors"][0]["message"]
    async with admin.socket() as connection:
        # Each operation of a connection has a budget of its own.
        for number in range(3):
            await connection.send(
                json.dumps({"id": str(number), "type": "subscribe", "payload": {"query": page, "variables": {"n": 3}}})
            )
            assert "errors" not in json.loads(await connection.recv())["payload"]
            assert json.loads(await connection.recv())["type"] == "complete"


async def test_slow_reads_hold_up_neither_tokens_nor_readiness(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release = threading.Semaphore(0), threading.Event()

    def slow_read() -> int:
        begun.release()
        release.wait(30)
        return 0

    monkeypatch.setattr("container_manager.store.events.newest", slow_read)
    slow = [asyncio.create_task(admin("{ eventCursor }")) for _ in range(8)]
    try:
        for _ in range(threads.READERS):
            assert await asyncio.to_thread(begun.acquire, timeout=10)
        async with asyncio.timeout(10):
            assert (await admin.http.get("/readyz")).status_code == 200
            assert (await admin("{ __typename }")) == "Query"
    finally:
        release.set()
        await asyncio.gather(*slow)


async def test_a_hidden_schema_is_not_suggested(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, suggested in (("hostz", True), ("jobz", False)):
        if not suggested:
            configure(monkeypatch, introspection=False)
        error = await admin.error(f"{{ {name} }}")
        assert ("Did you mean" in error["message"]) == suggested
        error = await admin.error(SUBMIT, input={"image": "a", "prioritys": 1})
        assert ("Did you mean" in error["message"]) == suggested


async def test_the_schema_need_not_be_shown(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, introspection=False)
    inside = "{ ...f } fragment f on Query { a: __schema { types { name } } }"
    for query in ("{ __schema { types { name } } }", '{ __type(name: "Query") { name } }', inside):
        assert "CONTAINER_MANAGER_INTROSPECTION" in (await admin.error(query))["message"]
    assert await admin("{ __typename }") == "Query"


@pytest.mark.parametrize("transport", ["http", "websocket", "event stream"])
async def test_an_operation_has_a_time_limit(admin: Api, monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    monkeypatch.setattr("graphql_api.limits.OPERATION_SECONDS", 0.1)
    release = threading.Event()
    monkeypatch.setattr("container_manager.store.events.newest", lambda: release.wait(10) and 0)
    query = {"query": "{ eventCursor }"}
    try:
        async with asyncio.timeout(5):
            if transport == "websocket":
                async with admin.socket() as connection:
                    await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": query}))
                    answer = await connection.recv()
            else:
                headers = {"Accept": "text/event-stream"} if transport == "event stream" else {}
                answer = (await admin.http.post("/graphql", json=query, headers=headers)).text
        assert "took longer than 0.1 s" in answer
    finally:
        release.set()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ eventCursor", "GRAPHQL_PARSE_FAILED"),
        ("{ eventCursors }", "GRAPHQL_VALIDATION_FAILED"),
        ("query { hosts(first: $first) { edges { cursor } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($first: Int) { eventCursor }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($first: String) { hosts(first: $first) { edges { cursor } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($first: Int!) { hosts(first: $first) { edges { cursor } } }", "BAD_USER_INPUT"),
    ],
)
async def test_errors_of_the_request_have_codes_over_each_transport(admin: Api, query: str, code: str) -> None:
    assert (await admin.error(query))["extensions"]["code"] == code
    async with admin.socket() as connection:
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
        message = json.loads(await connection.recv())
    error = (message["payload"] if message["type"] == "error" else message["payload"]["errors"])[0]
    assert error["extensions"]["code"] == code


async def test_a_document_that_is_nested_too_deeply_is_refused_on_every_transport(admin: Api) -> None:
    deep = {"query": "{a" * 300 + "}" * 300}
    for accept in ("application/json", "application/graphql-response+json", "text/event-stream, application/json"):
        answer = await admin.http.post("/graphql", json=deep, headers={"Accept": accept})
        assert answer.status_code < 500
        assert "Document is nested too deeply." in answer.text
    async with admin.socket() as connection:
        for _ in range(2):
            await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": deep}))
            told = json.loads(await connection.recv())
            assert (told["type"], told["payload"][0]["extensions"]["code"]) == ("error", "GRAPHQL_PARSE_FAILED")


async def test_a_known_document_is_measured_with_its_variables(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphql_api.limits.MAX_COST", 200)
    query = "query($n: Int!) { hosts(first: $n) { edges { cursor } } }"
    assert await admin(query, n=1) == {"edges": []}
    assert "its cost is" in (await admin.error(query, n=100))["message"]
    assert await admin(query, n=2) == {"edges": []}
