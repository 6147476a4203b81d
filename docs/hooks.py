"""Pages that MkDocs makes from the code: the reference, and llms.txt, an index for language models."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CLASSES = """
## The client

::: container_manager.client.AsyncClient
::: container_manager.client.AsyncJob
::: container_manager.client.Client
::: container_manager.client.errors
::: container_manager.client.options

## In a Django project

::: container_manager.embed
::: container_manager.signals
::: container_manager.tasks.ContainerBackend

## Executors

::: container_manager.executors.base
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the reference."""
    _load_django()
    for name, made in (
        ("cli", _commands()), ("settings", _settings()), ("graphql", _graphql()), ("events", _events()),
        ("metrics", _metrics()), ("python", iter(["# Python", CLASSES])),
    ):  # fmt: skip
        files.append(File.generated(config, f"reference/{name}.md", content="\n\n".join(made) + "\n"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to the sources is only a name on the site."""
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", r"`\2`", markdown)


def on_post_build(config: Any) -> None:
    """Write llms.txt: each page with its first sentence."""
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}", ""]
    for path in sorted((ROOT / "docs").glob("*.md")):
        title, _, text = path.read_text().partition("\n")
        first = next(
            (part for part in text.strip().split("\n\n") if not part.strip().startswith(("#", "|", "!", "```", "-"))),
            "",
        )
        sentence = " ".join(first.split()).partition(". ")[0]
        lines.append(f"- [{title.lstrip('# ')}]({path.stem}/): {sentence.rstrip('.:')}.")
    Path(config["site_dir"], "llms.txt").write_text("\n".join(lines) + "\n")


def _load_django() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "container_manager.settings")
    import django

    django.setup()


def _row(*cells: object) -> str:
    return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"


def _table(*headings: str) -> list[str]:
    return [_row(*headings), _row(*("---" for _ in headings))]


def _commands() -> Iterator[str]:
    from container_manager.cli.main import PROGRAM, main

    yield "# Commands"
    yield from _command(main, PROGRAM, click.Context(main, info_name=PROGRAM))


def _command(command: click.Command, name: str, context: click.Context) -> Iterator[str]:
    yield f"{'##' if context.parent is None else '###'} {name}"
    yield "```text\n" + " ".join([name, *command.collect_usage_pieces(context)]) + "\n```"
    yield (command.help or "").replace("\b", "").strip()
    rows = _table("option", "", "default")
    for option in command.params:
        if isinstance(option, click.Option):
            default = "" if option.default in (None, False, ()) or callable(option.default) else option.default
            default = "" if "UNSET" in str(default).upper() else default
            variable = f" (`{option.envvar}`)" if option.envvar else ""
            rows.append(
                _row(
                    f"`{', '.join([*option.opts, *option.secondary_opts])}`", f"{option.help or ''}{variable}", default
                )
            )
    if len(rows) > 2:
        yield "\n".join(rows)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from _command(each, f"{name} {each.name}", click.Context(each, info_name=each.name, parent=context))


def _settings() -> Iterator[str]:
    from container_manager.environment import PREFIX, Environment

    yield "# Settings"
    yield "Variables of the environment. In a Django project, keys of `CONTAINER_MANAGER` without the prefix."
    rows = _table("variable", "default", "meaning")
    for name, field in Environment.model_fields.items():
        default = "" if field.default_factory else field.default
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
        rows.append(
            _row(f"`{PREFIX}{name.upper()}`", f"`{shown}`" if shown not in ("", None) else "", field.description)
        )
    yield "\n".join(rows)


def _graphql() -> Iterator[str]:
    from graphql import print_type

    from graphql_api.schema import schema

    known = schema._schema  # noqa: SLF001 - graphql-core's schema
    yield "# GraphQL"
    yield "Every type, field and argument is described in the schema, which the editor at `/graphql` shows as well."
    for kind in (known.query_type, known.mutation_type, known.subscription_type):
        yield f"## {kind.name}"
        rows = _table("field", "gives", "")
        for name, field in kind.fields.items():
            arguments = ", ".join(f"{argument}: {of.type}" for argument, of in field.args.items())
            rows.append(
                _row(f"`{name}{f'({arguments})' if arguments else ''}`", f"`{field.type}`", field.description or "")
            )
        yield "\n".join(rows)
    yield "## Types"
    roots = {known.query_type, known.mutation_type, known.subscription_type}
    for name, kind in sorted(known.type_map.items()):
        if not name.startswith("__") and kind not in roots and name not in {"Int", "Float", "String", "Boolean", "ID"}:
            yield f"### {name}\n\n```graphql\n{print_type(kind)}\n```"


def _events() -> Iterator[str]:
    from container_manager.domain.kinds import EventKind

    texts = tomllib.loads((ROOT / "graphql_api/descriptions.toml").read_text())["RoutingEventKind"]
    yield "# Events"
    yield "What `routingEvents` and `container-manager events` show. Each is one committed fact, with a cursor."
    yield "\n".join(
        [*_table("kind", "what happened"), *(_row(f"`{kind.name}`", texts[kind.name]) for kind in EventKind)]
    )


def _metrics() -> Iterator[str]:
    from prometheus_client.metrics import MetricWrapperBase

    from container_manager.observability import exposition, metrics

    yield "# Metrics"
    yield "`/metrics`, in the format of Prometheus. Samples of counters end in `_total`."
    rows = _table("metric", "type", "labels", "meaning")
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            labels = ", ".join(metric._labelnames)  # noqa: SLF001 - it has no other name for them
            rows.append(_row(f"`{family.name}`", family.type, labels, family.documentation))
    of_hosts, of_queue = ", ".join(exposition.HOST_LABELS), "verdict, code"
    for family in exposition._Fleet([], 0, []).collect():  # noqa: SLF001 - it reads no database then
        name = family.name.removeprefix("container_manager_")
        labels = of_hosts if name.startswith("host_") else of_queue if name.startswith("queue_") else ""
        rows.append(_row(f"`{family.name}`", family.type, labels, family.documentation))
    yield "\n".join(rows)
