"""The least that a GraphQL mutation can do: insert one row, committed together with others of the same moment.

uvicorn benchmarks.bare:application
"""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import strawberry
from starlette.applications import Starlette
from starlette.routing import Route
from strawberry.asgi import GraphQL
from strawberry.extensions import ParserCache, ValidationCache

from benchmarks import fleet

fleet.prepare(os.environ["CONTAINER_MANAGER_DATABASE_URL"])

from django.db import transaction  # noqa: E402

from container_manager.models import AuditEntry  # noqa: E402

waiting: asyncio.Queue[tuple[AuditEntry, asyncio.Future[int]]] = asyncio.Queue()
writer = ThreadPoolExecutor(1)


def commit(entries: list[AuditEntry]) -> list[AuditEntry]:
    with transaction.atomic():
        return AuditEntry.objects.bulk_create(entries)


async def write() -> None:
    while True:
        batch = [await waiting.get()]
        while not waiting.empty():
            batch.append(waiting.get_nowait())
        rows = await asyncio.get_running_loop().run_in_executor(writer, commit, [entry for entry, _ in batch])
        for row, (_, answer) in zip(rows, batch, strict=True):
            answer.set_result(row.pk)


@strawberry.type
class Row:
    id: strawberry.ID
    target: str


@strawberry.type
class Query:
    ready: bool = True


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def insert(self, target: str) -> Row:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting.put_nowait((AuditEntry(actor="bare", action="insert", target=target), answer))
        return Row(id=strawberry.ID(str(await answer)), target=target)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    task = asyncio.create_task(write())
    yield
    task.cancel()


schema = strawberry.Schema(query=Query, mutation=Mutation, extensions=[ParserCache, ValidationCache])
application = Starlette(routes=[Route("/graphql", GraphQL(schema))], lifespan=lifespan)
