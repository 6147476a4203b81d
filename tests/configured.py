"""Another configuration for the rest of a test, or for a block of `pytest.MonkeyPatch.context()`."""

import pytest

from container_manager import configuration


def configure(patch: pytest.MonkeyPatch, **changes: object) -> None:
    """Change fields of the present configuration."""
    changed = configuration.current().model_copy(update=changes)
    patch.setattr(configuration, "current", lambda: changed)
