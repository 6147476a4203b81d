"""Documents and helpers that the tests of the API share."""

import websockets
from asgiref.sync import sync_to_async

from tests.client import JOB_FIELDS, USER_ERRORS, Api
from tests.factories import ContainerJobFactory, ExecutorHostFactory

make_job = sync_to_async(ContainerJobFactory)


make_hosts = sync_to_async(ExecutorHostFactory.create_batch)


UPDATE_HOST = f"""mutation($id: ID!, $input: HostPatch!) {{ updateHost(id: $id, input: $input) {{
    __typename ... on ExecutorHost {{ id name config routingWeight isActive
        capacity {{ maxConcurrentJobs maxMemoryMb }} health {{ status }} }} {USER_ERRORS} }} }}"""


CANCEL = """mutation($id: ID!) { cancelJob(id: $id) {
    __typename ... on ContainerJob { status } ... on UserError { message } } }"""


SUBMIT_MANY = f"""mutation($inputs: [JobInput!]!) {{ submitJobs(inputs: $inputs) {{
    __typename ... on ContainerJob {{ {JOB_FIELDS} }} {USER_ERRORS} }} }}"""


SIMULATED = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 50}}


def host_mutation(name: str) -> str:
    fields = "name isActive isDraining health { status }"
    return f"mutation($id: ID!) {{ {name}(id: $id) {{ __typename ... on ExecutorHost {{ {fields} }} {USER_ERRORS} }} }}"


async def event_kinds(api: Api, job_id: str) -> list[str]:
    query = "query($id: ID) { routingEvents(filters: {jobId: $id}, first: 100) { edges { node { kind } } } }"
    return [edge["node"]["kind"] for edge in (await api(query, id=job_id))["edges"]]


async def connect(url: str) -> websockets.ClientConnection:
    return await websockets.connect(url.replace("http", "ws") + "/graphql", subprotocols=["graphql-transport-ws"])
