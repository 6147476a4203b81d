"""The identity of this installation, and the check of its secret key."""

import secrets
from datetime import UTC, datetime

from django.db import connection

from container_manager import crypto
from container_manager.environment import ConfigurationError
from container_manager.models import Installation

CANARY = "canary"


def database_time() -> datetime:
    """The present moment by the database's clock."""
    if connection.vendor != "postgresql":
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def identify() -> str:
    """The installation's id, which is created at the first start.

    Raises:
        ConfigurationError: the secret key is not the one this database was written with.
    """
    row = Installation.objects.order_by("pk").first()
    if row is None:
        row = Installation.objects.create(instance=secrets.token_hex(4), canary=crypto.encrypt(CANARY))
    try:
        crypto.decrypt(bytes(row.canary))
    except crypto.WrongKeyError as error:
        raise ConfigurationError(f"{error}.") from error
    return row.instance
