"""What is committed fits what the code says."""

from io import StringIO
from pathlib import Path

from django.core.management import call_command

from graphql_api.schema import schema

ROOT = Path(__file__).parents[2]


def test_the_schema_file_is_what_the_code_exports() -> None:
    assert (ROOT / "graphql_api" / "schema.graphql").read_text().strip() == schema.as_str().strip(), (
        "run scripts/schema"
    )


def test_no_migration_is_missing() -> None:
    out = StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=out)
    assert "No changes detected" in out.getvalue()


def test_the_configuration_passes_djangos_checks() -> None:
    call_command("check")
