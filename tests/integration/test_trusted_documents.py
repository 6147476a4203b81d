"""An installation that runs only the documents of its own clients."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import websockets

from container_manager.domain.kinds import Role
from graphql_api.application import make_application
from graphql_api.dashboard import documents
from tests.api import connect
from tests.client import EVENTS, Api
from tests.configured import configure
from tests.server import make_token, serving

HOSTS = "query Hosts { hosts(first: 1) { edges { node { name } } } }"
DOCUMENTS = {"hosts": HOSTS, "events": EVENTS}
APOLLO = {
    "format": "apollo-persisted-query-manifest",
    "version": 1,
    "operations": [{"id": key, "name": key, "type": "query", "body": body} for key, body in DOCUMENTS.items()],
}


def application_with(path: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        configure(patch, trusted_documents=str(path))
        return make_application()


@pytest.fixture(params=[DOCUMENTS, APOLLO], ids=["map", "apollo"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    (tmp_path / "documents.json").write_text(json.dumps(request.param))
    async with serving(application_with(tmp_path / "documents.json")) as url:
        yield url


async def test_only_listed_documents_run(url: str) -> None:
    headers = {"Authorization": f"Bearer {await make_token(Role.ADMIN)}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:

        async def codes(**body: object) -> list[str]:
            answer = (await http.post("/graphql", json=body)).json()
            return [error["extensions"]["code"] for error in answer.get("errors", [])]

        for known in (
            {"documentId": "hosts"},
            {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "hosts"}}},
            {"query": HOSTS},
        ):
            assert await codes(**known) == []
        assert await codes(documentId="other") == ["PERSISTED_QUERY_NOT_FOUND"]
        assert await codes(documentId=["hosts"]) == ["BAD_REQUEST"]
        for query in ("{ eventCursor }", HOSTS + " ", "mutation { checkHealth { id } }", "{ __typename }"):
            assert await codes(query=query) == ["FORBIDDEN"]
        answer = await http.get("/graphql", params={"documentId": "hosts", "variables": "{}"})
        assert answer.json() == {"data": {"hosts": {"edges": []}}}
        refused = await http.get("/graphql", params={"query": "{ eventCursor }"})
        assert refused.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        strict = {"Accept": "application/graphql-response+json"}
        assert (await http.post("/graphql", json={"query": "{ eventCursor }"}, headers=strict)).status_code == 403


async def test_sockets_run_only_listed_documents(url: str) -> None:
    api = Api(url, await make_token(Role.ADMIN))
    async with api.socket() as socket:
        for number, (payload, kind) in enumerate(
            [
                ({"query": "{ eventCursor }"}, "FORBIDDEN"),
                ({"documentId": "other"}, "PERSISTED_QUERY_NOT_FOUND"),
                ({"documentId": "hosts"}, ""),
            ]
        ):
            await socket.send(json.dumps({"id": str(number), "type": "subscribe", "payload": payload}))
            message = json.loads(await socket.recv())
            if kind:
                assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", kind)
            else:
                assert message["payload"]["data"] == {"hosts": {"edges": []}}
    await api.http.aclose()


async def test_the_dashboard_goes_on_working(url: str) -> None:
    api = Api(url, await make_token(Role.ADMIN))
    (viewer,) = [text for text in documents() if text.startswith("query Viewer")]
    assert (await api(viewer))["role"] == "ADMIN"
    await api.http.aclose()


@pytest.mark.parametrize("document", ["hosts", "other"])
async def test_a_client_without_a_token_learns_no_document(url: str, document: str) -> None:
    connection = await connect(url)
    await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"documentId": document}}))
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd.code == 4400


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "cannot be read"),
        ("[1]", "must be a JSON object"),
        ("{", "must be a JSON object"),
        ("{}", "must be a JSON object"),
        ('{"a": 1}', "must be a JSON object"),
        ('{"a": "{ nothing }"}', "document 'a' is not valid"),
        ('{"a": "{"}', "document 'a' is not valid"),
        (json.dumps({"a": "{" + " ".join(f"a{n}: eventCursor" for n in range(200)) + "}"}), "aliases"),
    ],
)
def test_a_file_that_does_not_fit_stops_the_start(tmp_path: Path, content: str | None, named: str) -> None:
    path = tmp_path / "documents.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match=named):
        application_with(path)
