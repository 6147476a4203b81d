"""What each command does before it uses a model."""

import os


def setup() -> None:
    """Load Django; its settings read the environment.

    Raises:
        ConfigurationError: the environment is wrong; the message says where.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")
    import django

    django.setup()
