"""The ASGI application: `uvicorn container_manager.asgi:application` serves everything that `serve` does."""

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
from graphql_api.front_door import protect_uvicorn

protect_uvicorn()
application = make_application(populate=register_local_engine)
