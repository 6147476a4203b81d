"""Django signals of the service."""

from django.dispatch import Signal

job_ended = Signal()
"""A job has ended. Arguments: `sender` (ContainerJob), `job` (as it is now), `cursor` (of the event).

It is sent at least once for each job that ends, from the event log, in one process of those that have receivers; so a
receiver may get it again after a crash. A job that was retried before is sent when its last attempt has ended.
"""
