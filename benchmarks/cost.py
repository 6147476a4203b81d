"""Whether the cost of an operation says what CPU time it takes.

    python -m benchmarks.cost [--operations 500] [--hosts 100] [--jobs 2000]

Random valid queries run in this process on the embedded database, whose work is then part of the process's CPU time.
The rank correlation (Spearman) of cost and CPU time should be 0.9 or more, and no operation should take more than ten
times what its cost says (the median of CPU time per cost, times its cost).
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import fleet

DEPTH = 6
TIMES = 3


class Generator:
    """Random valid queries; `ids` has ids of existing objects by type."""

    def __init__(self, schema: Any, ids: dict[str, list[str]], chance: random.Random) -> None:
        self._schema, self._ids, self._chance = schema, ids, chance

    def query(self) -> str:
        fields = self._schema.query_type.fields
        names = [self._chance.choice([*fields, "__schema"]) for _ in range(self._chance.choice([1, 1, 1, 2, 3]))]
        parts = [f"f{at}: {self._root(name)}" for at, name in enumerate(names)]
        return "{ " + " ".join(parts) + " }"

    def _root(self, name: str) -> str:
        if name == "__schema":
            kinds = ["name", "kind", "fields { name }", "fields { name type { name kind } args { name } }"]
            return f"__schema {{ types {{ {' '.join(self._chance.sample(kinds, self._chance.randint(1, 3)))} }} }}"
        return self._field(self._schema.query_type, name, DEPTH)

    def _field(self, parent: Any, name: str, depth: int) -> str:
        from graphql import get_named_type, is_leaf_type

        field = parent.fields[name]
        kind = get_named_type(field.type)
        below = "" if is_leaf_type(kind) else " " + self._selection(kind, depth - 1)
        return f"{name}{self._arguments(name, field)}{below}"

    def _selection(self, kind: Any, depth: int) -> str:
        from graphql import get_named_type, is_interface_type, is_leaf_type, is_object_type

        if not is_object_type(kind):
            members = self._schema.get_possible_types(kind)
            some = [self._chance.choice(members)]
            parts = [f"... on {member.name} {self._selection(member, depth)}" for member in some]
            return f"{{ __typename {'id ' if is_interface_type(kind) else ''}{' '.join(parts)} }}"
        leaves = [name for name, field in kind.fields.items() if is_leaf_type(get_named_type(field.type))]
        nested = [name for name in kind.fields if name not in leaves]
        if kind.name.endswith(("Connection", "Edge")):
            chosen = ["edges" if name == "edges" else "node" for name in nested if name in {"edges", "node"}]
        else:
            most = 0 if depth < 1 else self._chance.choice([0, 1, 1, 2])
            chosen = self._chance.sample(leaves, self._chance.randint(min(1, len(leaves)), len(leaves)))
            chosen += self._chance.sample(nested, min(most, len(nested)))
        fields = [self._field(kind, name, depth) for name in chosen]
        return "{ " + " ".join(fields or ["__typename"]) + " }"

    def _arguments(self, name: str, field: Any) -> str:
        chance, given = self._chance, []
        for argument in field.args:
            if argument in {"id", "hostId", "jobId"}:
                kind = {"host": "ExecutorHost", "hostId": "ExecutorHost"}.get(argument if argument != "id" else name)
                if argument == "id" or name == "whyNot" or chance.random() < 0.3:
                    given.append(f'{argument}: "{chance.choice(self._ids[kind or "ContainerJob"])}"')
            elif argument == "first" and chance.random() < 0.7:
                given.append(f"first: {chance.choice([1, 5, 20, 50, 100])}")
            elif argument == "by":
                given.append(f"by: {chance.choice(['HOST', 'EXECUTOR_TYPE', 'REGION', 'IMAGE'])}")
            elif argument == "jobs":
                jobs = ", ".join(
                    f'{{image: "a{at % 7}", memoryLimitMb: {64 + at % 5}}}'
                    for at in range(chance.choice([1, 5, 40, 200]))
                )
                given.append(f"jobs: [{jobs}]")
            elif argument == "filters" and name == "jobs" and chance.random() < 0.3:
                given.append("filters: {status: PENDING}")
        return f"({', '.join(given)})" if given else ""


def ranks(values: list[float]) -> list[float]:
    """The rank of each value; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for index in order[at : end + 1]:
            found[index] = (at + end) / 2
        at = end + 1
    return found


def populate(hosts: int, jobs: int) -> dict[str, list[str]]:
    """Hosts, jobs with decisions, some of them waiting; the ids of some."""
    from datetime import timedelta

    from django.utils import timezone

    from container_manager.executors.output import Output, OutputLine
    from container_manager.models import ContainerJob, ExecutorHost, HostUsage, JobOutput
    from container_manager.store import bulk, outputs
    from container_manager.store import jobs as job_store
    from container_manager.store.transaction import Actor, commit_one
    from graphql_api.ids import to_global

    written = outputs.compress(Output.of(OutputLine("stdout", at, f"line {at} of its output") for at in range(30)))
    fleet.make_hosts(hosts, slots=max(jobs * 4 // 5 // hosts, 1))
    for start in range(0, jobs, 50):
        batch = [
            ContainerJob(
                image="busybox", command=["true"], memory_limit=64 + at % 7, cpu_limit=0.1, labels={"n": str(at)}
            )
            for at in range(start, min(start + 50, jobs))
        ]
        commit_one(job_store.submit, job_store.Submission(batch, Actor("benchmark")))
        bulk.insert(
            bulk.rows_of(JobOutput, [JobOutput(pk=job.pk, job_id=job.pk, attempt=1, lines=written) for job in batch])
        )
    now = timezone.now().replace(second=0, microsecond=0)
    HostUsage.objects.bulk_create(
        HostUsage(
            host_id=pk, seconds=60, start=now - timedelta(minutes=minute), samples=1, jobs=1, most_jobs=1, memory_mb=64,
            cpu_millis=100, answers=1, latency_ms=2.0,
        )
        for pk in ExecutorHost.objects.values_list("pk", flat=True)
        for minute in range(60)
    )  # fmt: skip
    fleet.analyze()
    some = {"ExecutorHost": ExecutorHost, "ContainerJob": ContainerJob}
    return {
        name: [to_global(name, pk) for pk in model.objects.values_list("pk", flat=True)[:50]]
        for name, model in some.items()
    }


async def measure(queries: list[str], run: Callable[[str], Any]) -> list[float]:
    """The least CPU time of each query, in ms."""
    found = []
    for query in queries:
        times = []
        for _ in range(TIMES):
            began = time.process_time()
            result = await run(query)
            times.append((time.process_time() - began) * 1000)
        assert not result.errors, (result.errors[0].message, query)
        found.append(min(times))
    return found


async def main(arguments: argparse.Namespace) -> None:
    from graphql import parse

    from container_manager.domain.kinds import Role
    from container_manager.service import running
    from container_manager.store import threads
    from container_manager.store.transaction import Actor
    from graphql_api import documents, limits
    from graphql_api.context import Context, Identity
    from graphql_api.cost import cost as cost_of
    from graphql_api.schema import schema

    for name in ("MAX_COST", "MAX_ALIASES", "MAX_DEPTH"):
        setattr(limits, name, 10**9)
    ids = await threads.prepare(populate, arguments.hosts, arguments.jobs)
    generator = Generator(schema._schema, ids, random.Random(arguments.seed))
    queries = [generator.query() for _ in range(arguments.operations)]
    async with running(runs_jobs=False) as service:

        async def run(query: str) -> Any:
            documents.forget()
            context = Context(service, "", Identity(Actor("benchmark"), Role.ADMIN))
            return await schema.execute(query, context_value=context)

        await measure(queries[:20], run)
        cpu = await measure(queries, run)
    cost = [cost_of(schema._schema, parse(query), None, arguments.hosts).units for query in queries]
    correlation = statistics.correlation(ranks(cost), ranks(cpu))
    per_cost = [spent / of for spent, of in zip(cpu, cost, strict=True)]
    usual = statistics.median(per_cost)
    worst = max(range(len(queries)), key=per_cost.__getitem__)
    table = fleet.Table()
    table.row(
        f"{len(queries)} operations, {arguments.hosts} hosts, {arguments.jobs} jobs",
        correlation=correlation,
        us_per_cost=usual * 1000,
        worst=per_cost[worst] / usual,
        ms_of_worst=cpu[worst],
    )
    for at in sorted(range(len(queries)), key=per_cost.__getitem__, reverse=True)[: arguments.show]:
        print(f"{per_cost[at] / usual:6.2f} times, {cpu[at]:8.1f} ms, cost {cost[at]:8.0f}: {queries[at][:400]}")
    for at in sorted(range(len(queries)), key=per_cost.__getitem__)[: arguments.show]:
        print(f"{per_cost[at] / usual:6.2f} times, {cpu[at]:8.1f} ms, cost {cost[at]:8.0f}: {queries[at][:400]}")
    if arguments.json:
        table.as_json(arguments.json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=500)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="how many of the worst to print")
    parser.add_argument("--json", default="", help="a file for the figures, or - for stdout")
    given = parser.parse_args()
    fleet.prepare("")
    asyncio.run(main(given))
