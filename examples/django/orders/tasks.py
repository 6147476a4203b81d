"""What runs in containers of the shop's own image."""

from django_tasks import task


@task
def total(prices: list[int]) -> int:
    """The sum of some prices."""
    return sum(prices)


@task(queue_name="reports")
def report(name: str) -> str:
    """A report that nobody can make."""
    raise LookupError(f"there is no report {name!r}")
