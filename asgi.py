"""The ASGI application: `uvicorn asgi:application` serves everything that `container-manager serve` does."""

import os
import sys

from container_manager.environment import ConfigurationError

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")

try:
    import django

    django.setup()
except ConfigurationError as error:
    sys.exit(str(error))

from container_manager.bootstrap import register_local_engine
from graphql_api.application import make_application

application = make_application(populate=register_local_engine)
