"""Waiting for jobs through the API, and what they have written."""

from asgiref.sync import sync_to_async

from container_manager.store import outputs
from tests.client import Api
from tests.eventually import eventually

ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"}
CANCEL = "mutation($id: ID!) { cancelJob(id: $id) { __typename } }"


async def has_status(api: Api, job_id: str, *statuses: str) -> dict | None:
    job = await api.job(job_id)
    return job if job["status"] in statuses else None


async def ended(api: Api, job_id: str, timeout: float = 60) -> dict:
    return await eventually(lambda: has_status(api, job_id, *ENDED), timeout)


async def running(api: Api, job_id: str) -> dict:
    return await eventually(lambda: has_status(api, job_id, "RUNNING"), 30)


async def stored_lines(job_id: int) -> list[str]:
    """The text of what is stored of a job's output."""
    wanted = outputs.Wanted(job_id, None, 99)
    return [line.line.text for line in (await sync_to_async(outputs.pages)([wanted], 10**9))[wanted]]
