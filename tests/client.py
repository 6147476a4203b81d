"""A client that speaks GraphQL over HTTP and WebSocket; it knows nothing of the service."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import websockets


class Api:
    """A caller with one token."""

    def __init__(self, url: str, secret: str | None) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        # Certificates are not needed, and reading them takes longer than many a test.
        self.http = httpx.AsyncClient(base_url=url, headers=self.headers, timeout=60, verify=False)

    async def post(self, query: str, **variables: Any) -> dict[str, Any]:
        """The whole answer, errors and all."""
        answer = await self.http.post("/graphql", json={"query": query, "variables": variables})
        return answer.json()

    async def __call__(self, query: str, **variables: Any) -> Any:
        """The one root field's value; errors fail the test."""
        answer = await self.post(query, **variables)
        assert "errors" not in answer, answer["errors"]
        (value,) = answer["data"].values()
        return value

    async def error(self, query: str, **variables: Any) -> dict[str, Any]:
        """The one top-level error."""
        answer = await self.post(query, **variables)
        (error,) = answer["errors"]
        return error

    @asynccontextmanager
    async def socket(self, payload: dict[str, str] | None = None) -> AsyncIterator[Any]:
        """An acknowledged graphql-transport-ws connection."""
        address = self.url.replace("http", "ws") + "/graphql"
        async with websockets.connect(address, subprotocols=["graphql-transport-ws"], max_queue=None) as connection:
            await connection.send(json.dumps({"type": "connection_init", "payload": payload or self.headers}))
            assert json.loads(await connection.recv())["type"] == "connection_ack"
            yield connection

    @asynccontextmanager
    async def subscribe(self, query: str, **variables: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """The values of one subscription's root field, until it completes."""
        async with self.socket() as connection:
            message = {"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}}
            await connection.send(json.dumps(message))
            yield _values(connection)

    async def submit(self, **input: Any) -> dict[str, Any]:
        """Submit a job, which must be accepted."""
        job = await self(SUBMIT, input={"image": "busybox:test", **input})
        assert job["__typename"] == "ContainerJob", job
        return job

    async def job(self, job_id: str) -> dict[str, Any]:
        return await self(JOB, id=job_id)


async def _values(connection: Any) -> AsyncIterator[Any]:
    while True:
        async with asyncio.timeout(60):
            message = json.loads(await connection.recv())
        if message["type"] == "complete":
            return
        assert message["type"] == "next", message
        assert not message["payload"].get("errors"), message
        (value,) = message["payload"]["data"].values()
        yield value


JOB_FIELDS = """
    id name status attempt exitCode error routingReason executionId startedAt finishedAt cancelRequestedAt
    host { id name } waitingOn { message verdict rejections { code hosts } }
"""
USER_ERRORS = "... on UserError { message } ... on ValidationFailed { fields { field message } }"
SUBMIT = f"""mutation($input: JobInput!) {{ submitJob(input: $input) {{
    __typename ... on ContainerJob {{ {JOB_FIELDS} }} {USER_ERRORS} }} }}"""
JOB = f"query($id: ID!) {{ job(id: $id) {{ {JOB_FIELDS} logs {{ edges {{ node {{ stream text }} }} }} }} }}"
CREATE_HOST = f"""mutation($input: HostInput!) {{ createHost(input: $input) {{
    __typename ... on ExecutorHost {{ id name config region labels routingWeight isActive isDraining
        health {{ status error consecutiveFailures }} capacity {{ maxConcurrentJobs maxMemoryMb maxCpuCores }} }}
    {USER_ERRORS} }} }}"""
EVENTS = """subscription($after: String, $filters: RoutingEventFilter) {
    routingEvents(after: $after, filters: $filters) { cursor kind message job { id name } host { id name } } }"""
