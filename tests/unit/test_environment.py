"""The environment: one sentence for each thing that can be wrong with it."""

import re
import stat
from pathlib import Path

import pytest

from container_manager.environment import ConfigurationError, Environment, read

ROOT = Path(__file__).parents[2]


def test_defaults_need_nothing() -> None:
    environment = read({})
    assert environment.effective_database_url.startswith("sqlite:///")
    assert environment.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")


def test_values_are_read_by_name_and_empty_ones_do_not_count() -> None:
    environment = read({
        "CONTAINER_MANAGER_HOME": "/data",
        "CONTAINER_MANAGER_ALLOWED_HOSTS": "a.example, b.example",
        "CONTAINER_MANAGER_LEASE_SECONDS": "20",
        "CONTAINER_MANAGER_LOG_FORMAT": "",
        "CONTAINER_MANAGER_URL": "for the client",
        "PATH": "/bin",
    })  # fmt: skip
    assert environment.effective_database_url == "sqlite:////data/container-manager.sqlite3"
    assert environment.allowed_hosts == ("a.example", "b.example")
    assert environment.lease_seconds == 20


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"LEASE_SECOND": "20"}, "CONTAINER_MANAGER_LEASE_SECOND is not a setting"),
        ({"LEASE_SECONDS": "soon"}, "CONTAINER_MANAGER_LEASE_SECONDS: .*number"),
        ({"LEASE_SECONDS": "1"}, "CONTAINER_MANAGER_LEASE_SECONDS: .*greater than or equal to 3"),
        ({"LOG_FORMAT": "xml"}, "CONTAINER_MANAGER_LOG_FORMAT: .*'text', 'json'"),
        ({"DATABASE_URL": "mysql://x"}, "CONTAINER_MANAGER_DATABASE_URL: must start with"),
        ({"DATABASE_URL": "postgresql://x/y"}, "CONTAINER_MANAGER_SECRET_KEY must be given with PostgreSQL"),
        ({"SECRET_KEY": "short"}, "CONTAINER_MANAGER_SECRET_KEY must have at least 32"),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        read({f"CONTAINER_MANAGER_{name}": value for name, value in variables.items()})
    assert "\n" not in str(caught.value)


def test_the_secret_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    variables = {"CONTAINER_MANAGER_HOME": str(tmp_path / "home")}
    (key,) = read(variables).secret_keys()
    assert len(key) >= 32
    assert read(variables).secret_keys() == (key,)
    assert stat.S_IMODE((tmp_path / "home" / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["secret_key"]


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="CONTAINER_MANAGER_HOME: the secret key cannot be kept"):
        read({"CONTAINER_MANAGER_HOME": str(tmp_path / "file" / "home")}).secret_keys()


def test_several_keys_rotate() -> None:
    environment = read({"CONTAINER_MANAGER_SECRET_KEY": f"{'n' * 32}, {'o' * 32}"})
    assert environment.secret_keys() == ("n" * 32, "o" * 32)


def test_the_readme_lists_every_variable_and_no_other() -> None:
    listed = set(re.findall(r"\| `CONTAINER_MANAGER_([A-Z_]+)`", (ROOT / "README.md").read_text()))
    assert listed == {name.upper() for name in Environment.model_fields}
