"""What happens once before a process serves: it takes the database and brings its tables up to date."""

import fcntl
import logging
import os
import time
from contextlib import nullcontext
from pathlib import Path

from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connections
from django.db.migrations.executor import MigrationExecutor

from container_manager import clock, configuration
from container_manager.database import ALIAS, atomic, connection
from container_manager.domain.kinds import ExecutorType, Role
from container_manager.environment import ConfigurationError
from container_manager.errors import Conflict
from container_manager.models import ExecutorHost
from container_manager.store import installation, tokens
from container_manager.store.installation import identify
from container_manager.store.tokens import NewToken
from container_manager.store.transaction import ROUTING_LOCK, Actor, commit_one

logger = logging.getLogger(__name__)

UPGRADE_TRIES, UPGRADE_PAUSE = 100, 2.0
LOCK_NOT_AVAILABLE = "55P03"
APPS = ("contenttypes", "container_manager")
"""The applications that have tables here."""

FIRST_START = "first start"
FIRST_TOKEN = "admin"  # noqa: S105 - its name
_held: int | None = None


def prepare() -> None:
    """Take the database, bring its tables up to date, and check the secret key. A second call changes nothing.

    Raises:
        ConfigurationError: another process serves from this SQLite database, a host needs an executor that is not
            installed, or as `migrate`.
    """
    _take_database()
    migrate()
    _check_executors()
    _keep_local_engines()
    clock.set_to(installation.database_time())


def migrate() -> None:
    """Bring the tables up to date and check the secret key. In another project its own `migrate` does the former.

    Raises:
        ConfigurationError: the database cannot be used, the tables of a project are not those of this version, or the
            secret key is wrong.
    """
    if configuration.is_embedded():
        check_database()
        installation.note_key()
        return
    path = Path(connection.settings_dict["NAME"])
    try:
        if connection.vendor == "sqlite":
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Only its owner may read it; the files beside it get the same permissions.
            path.touch(mode=0o600)
        for _ in range(UPGRADE_TRIES):
            try:
                _migrate()
                return
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                    raise
                logger.warning("the tables are in use, perhaps by a backup; the upgrade is retried")
                time.sleep(UPGRADE_PAUSE)
        raise ConfigurationError("The tables cannot be upgraded: they are in use all the time, perhaps by a backup.")
    except (OSError, DatabaseError) as error:
        raise ConfigurationError(f"The database cannot be used: {str(error).strip().splitlines()[0]}.") from error


def check_database() -> None:
    """Check, without changing anything, that the tables are those of this version, and the secret key.

    Raises:
        ConfigurationError: they are not, the database cannot be used, or the secret key is wrong.
    """
    path = Path(connection.settings_dict["NAME"])
    create, upgrade = "start the service first", "start the service of this version, which upgrades them"
    if configuration.is_embedded():
        create = upgrade = "run `manage.py migrate`"
    try:
        if connection.vendor == "sqlite" and not path.exists():
            raise ConfigurationError(f"There is no database {path} yet: {create}.")
        executor = MigrationExecutor(connections[ALIAS])
        if _has_older_tables(executor):
            raise ConfigurationError(f"The tables are those of an earlier version: {upgrade}.")
        later = set(executor.loader.applied_migrations) - set(executor.loader.disk_migrations)
        if unknown := [name for app, name in later if app in APPS]:
            name = max(unknown)
            raise ConfigurationError(f"The tables are those of a later version (they have {name}): use that version.")
        identify()
    except (OSError, DatabaseError) as error:
        raise ConfigurationError(f"The database cannot be used: {str(error).strip().splitlines()[0]}.") from error


def _has_older_tables(executor: MigrationExecutor) -> bool:
    newest = [node for app in APPS for node in executor.loader.graph.leaf_nodes(app)]
    return bool(executor.migration_plan(newest))


def _migrate() -> None:
    with atomic() if connection.vendor == "postgresql" else nullcontext():
        if connection.vendor == "postgresql":
            with connection.cursor() as sql:
                # Processes that start at the same time upgrade one after the other, and none may stand still in here.
                sql.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'")
                sql.execute("SELECT pg_advisory_xact_lock(%s)", [ROUTING_LOCK])
                # A statement that waits for a table lock makes all other statements wait behind it.
                sql.execute("SET LOCAL lock_timeout = '1s'")
        # The command takes a while to find out that there is nothing to do.
        for app in APPS if _has_older_tables(MigrationExecutor(connections[ALIAS])) else ():
            call_command("migrate", app, database=ALIAS, verbosity=0, interactive=False)
        if connection.vendor == "postgresql":
            with connection.cursor() as sql:
                # After a restore from another cluster, whose transactions had higher numbers.
                sql.execute(
                    "DELETE FROM container_manager_fleetchange WHERE txid > txid_snapshot_xmax(txid_current_snapshot())"
                )
        identify()
        installation.note_key()


def _check_executors() -> None:
    known = {str(kind) for kind in ExecutorType}
    for name, kind in ExecutorHost.objects.exclude(executor_type__in=known).values_list("name", "executor_type"):
        raise ConfigurationError(
            f"The host {name} is of the type {kind}, of which no executor is installed: install its package."
        )


def _keep_local_engines() -> None:
    """SQLite serves one machine, so its local engines are this machine's, also when the machine had another name."""
    if connection.vendor != "sqlite":
        return
    node = configuration.current().node
    for host in ExecutorHost.objects.exclude(node__in=["", node]):
        if not host.config.get("node"):
            logger.warning("host %s belongs to node %s now; this machine was called %s", host.name, node, host.node)
            ExecutorHost.objects.filter(pk=host.pk).update(node=node)


def first_token() -> str | None:
    """Create an admin token if there is no token yet; returns its secret, otherwise None."""
    if tokens.listed():
        return None
    try:
        made: tokens.Created = commit_one(tokens.create, NewToken(FIRST_TOKEN, Role.ADMIN, actor=Actor(FIRST_START)))
    except Conflict:
        # Another process has created it at the same moment.
        return None
    return made.secret


def _take_database() -> None:
    global _held  # noqa: PLW0603 - the lock is held as long as the process lives
    if connection.vendor != "sqlite" or _held is not None:
        return
    path = Path(connection.settings_dict["NAME"])
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"The database {path} cannot be used: {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigurationError(
            f"Another process serves from {path}; SQLite serves one process. "
            "Stop it, choose another CONTAINER_MANAGER_HOME, or set CONTAINER_MANAGER_DATABASE_URL to PostgreSQL."
        ) from None
    _held = handle
