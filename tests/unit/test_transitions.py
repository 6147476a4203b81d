"""The query by which workers read what they have claimed."""

from unittest.mock import patch

import pytest
from django.db import connections

from container_manager.store import transitions


def test_claims_are_locked_in_the_database_of_the_tables_and_not_in_djangos_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(connections.settings, "beside", connections.settings["default"] | {
        "ENGINE": "django.db.backends.postgresql", "NAME": "beside", "OPTIONS": {},
    })  # fmt: skip
    monkeypatch.setattr(transitions, "ALIAS", "beside")
    with patch.object(connections["beside"], "get_autocommit", return_value=False):
        sql, _, _ = transitions._claimed_query.__wrapped__()
    assert sql.endswith('FOR UPDATE OF "container_manager_containerjob"')
