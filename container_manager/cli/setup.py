"""Loading Django, which each command does before it uses a model."""

import os


def setup() -> None:
    """Load Django; its settings read the environment.

    Raises:
        ConfigurationError: a variable of the environment is wrong; the message names it.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")
    import django

    django.setup()
