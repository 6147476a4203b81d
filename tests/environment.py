"""Loaded before Django's settings: tests have a home of their own and no variable of the machine's."""

import os
import tempfile

HOME = tempfile.mkdtemp(prefix="container-manager-tests-")

for name in [name for name in os.environ if name.startswith("CONTAINER_MANAGER_")]:
    if name != "CONTAINER_MANAGER_DATABASE_URL":
        del os.environ[name]
os.environ["CONTAINER_MANAGER_HOME"] = HOME
os.environ["CONTAINER_MANAGER_SECRET_KEY"] = "only-for-tests-only-for-tests-only-for-tests"
os.environ["CONTAINER_MANAGER_NODE"] = "test-node"
os.environ["CONTAINER_MANAGER_STOP_GRACE_SECONDS"] = "1"
os.environ["CONTAINER_MANAGER_INFRASTRUCTURE_RETRIES"] = "2"
os.environ["CONTAINER_MANAGER_LOG_LEVEL"] = "warning"
