# ruff: noqa: E402
"""A process that writes events: `python -m tests.event_writer NAME TRANSACTIONS EACH`.

Each transaction takes its time, a different one, before it comes to its events, as real ones do; so transactions of
several of these processes end in another order than they began in.
"""

import os
import random
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")

import django

django.setup()

from django.db import connection

from container_manager.domain.kinds import EventKind
from container_manager.store.transaction import Transaction, commit_one


def tell(tx: Transaction, items: list[str]) -> list[None]:
    for message in items:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [random.random() * 0.01])
        for _ in range(int(sys.argv[3])):
            tx.event(EventKind.JOB_PROGRESS, message)
    return [None] * len(items)


for number in range(int(sys.argv[2])):
    commit_one(tell, f"{sys.argv[1]}-{number}")
