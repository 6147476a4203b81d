"""An order, and the job that makes its invoice."""

from typing import Any

from django.db import models

from container_manager.models import ContainerJob


class Order(models.Model):
    """What a customer has ordered."""

    article = models.CharField(max_length=100)
    invoice = models.CharField(max_length=20, default="not made yet")


def note_invoice(sender: type[ContainerJob], job: ContainerJob, **_: Any) -> None:
    """Called when a job has ended, perhaps twice."""
    if order := job.labels.get("order"):
        Order.objects.filter(pk=order).update(invoice=job.status)
