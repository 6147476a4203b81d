"""The shop, with container-manager's API and dashboard below /containers/."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django = get_asgi_application()

from container_manager.embed import mount  # noqa: E402 - Django comes first

application = mount(django, at="/containers")
