"""Jobs and hosts in files of YAML or JSON."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from container_manager.client import HostInput, JobInput

STANDARD_INPUT = Path("-")


def read(path: Path) -> Any:
    """What a file of YAML or JSON has; `-` is the standard input.

    Raises:
        click.ClickException: it cannot be read, or is no YAML.
    """
    import yaml

    try:
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text()
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except yaml.YAMLError as error:
        raise click.ClickException(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def jobs(path: Path | None, options: dict[str, Any]) -> "list[JobInput]":
    """The jobs of a file, each with the fields that were given as options; without a file, the one of the options.

    Raises:
        click.ClickException: the file cannot be read, or a job has an unknown field or a value of the wrong type.
        click.UsageError: a job has no image.
    """
    from container_manager.client import job_input

    made = []
    for number, one in enumerate(_listed(path, "jobs") if path else [{}]):
        fields = {**_by_name(one), **options}
        where = f"{path}, job {number + 1}: " if path else ""
        try:
            # Without an image, a field that does not exist may be a misspelled one.
            job = job_input(**{"image": "", **fields})
        except TypeError as error:
            raise click.ClickException(f"{where}{error}.") from error
        if not job.image:
            raise click.UsageError(f"{where}an image is needed: --image IMAGE, or `image:` in the file.")
        made.append(job)
    return made


def hosts(path: Path) -> "list[HostInput]":
    """The hosts of a file: a list, or an object with the list under `hosts`.

    Raises:
        click.ClickException: the file cannot be read, or a host has an unknown field or a value of the wrong type.
    """
    made = []
    for number, one in enumerate(_listed(path, "hosts")):
        try:
            made.append(host_input(_by_name(one)))
        except click.ClickException as error:
            raise click.ClickException(f"{path}, host {number + 1}: {error.message}") from error
    return made


def host_input(fields: dict[str, Any]) -> "HostInput":
    """The input for a host.

    Raises:
        click.ClickException: there is no such field, or a value has the wrong type.
    """
    from pydantic import ValidationError

    from container_manager.client import HostInput
    from container_manager.client.options import explained

    if isinstance(kind := fields.get("executor_type"), str):
        fields = {**fields, "executor_type": kind.upper()}
    try:
        return HostInput.model_validate(fields)
    except ValidationError as error:
        raise click.ClickException(f"{explained(error, HostInput)}.") from error


def _listed(path: Path, name: str) -> list[dict[str, Any]]:
    content = read(path)
    if isinstance(content, dict) and name in content:
        content = content[name]
    listed = content if isinstance(content, list) else [content]
    if not listed or not all(isinstance(one, dict) for one in listed):
        raise click.ClickException(f"{path} has no {name}: it must be an object, or a list of objects.")
    return listed


def _by_name(fields: dict[str, Any]) -> dict[str, Any]:
    """With the names of Python; a file may have those of the API."""
    from pydantic.alias_generators import to_snake

    return {to_snake(str(name)): value for name, value in fields.items()}
