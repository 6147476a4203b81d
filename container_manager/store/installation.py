"""The identity of this installation, and the check of its secret key."""

import secrets
from datetime import UTC, datetime

from container_manager import crypto
from container_manager.database import connection
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
        row = Installation.objects.create(
            instance=secrets.token_hex(4), canary=crypto.encrypt(CANARY), keys_in_use=crypto.fingerprints()[:1]
        )
    try:
        crypto.decrypt(bytes(row.canary))
    except crypto.WrongKeyError as error:
        raise ConfigurationError(f"{error}.") from error
    given = crypto.fingerprints()
    if not set(row.keys_in_use) <= set(given):
        raise ConfigurationError(
            "CONTAINER_MANAGER_SECRET_KEY lacks a key with which values of this database are encrypted. Give it after "
            "the new one, and run `container-manager keys rotate`; after that it may go."
        )
    return row.instance


def check_key() -> None:
    """Check the secret key, once in a process, if the service has started before.

    Raises:
        ConfigurationError: the secret key is not the one this database was written with.
    """
    if not _checked and Installation.objects.exists():
        identify()
        _checked.append(True)


_checked: list[bool] = []


def note_key() -> None:
    """Note that the first key may encrypt from now on. Called under the lock of upgrades."""
    row, given = Installation.objects.get(), crypto.fingerprints()
    if given[0] not in row.keys_in_use:
        # Of an earlier version it is not known which keys have encrypted.
        row.keys_in_use = [*row.keys_in_use, given[0]] if row.keys_in_use else given
        row.save(update_fields=["keys_in_use"])
