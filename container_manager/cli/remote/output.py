"""How the client's commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]
Column = tuple[str, str | Callable[[Row], object]]
"""A heading, and the path of the value, such as `host.name`, or a function of the row."""

STYLES = {
    "SUCCEEDED": "green", "HEALTHY": "green", "ok": "green", "RUNNING": "cyan", "LAUNCHING": "cyan", "ROUTED": "cyan",
    "PENDING": "yellow", "NOT_NOW": "yellow", "UNKNOWN": "yellow", "draining": "yellow", "ejected": "yellow",
    "FAILED": "red", "TIMED_OUT": "red", "NEVER": "red", "UNHEALTHY": "red", "no": "red", "inactive": "dim",
    "CANCELLED": "dim",
}  # fmt: skip


def at(row: Row, path: str) -> Any:
    """The value at a path such as `host.name`; None where there is none."""
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def table(rows: Sequence[Row], columns: Sequence[Column], *, empty: str) -> None:
    """Print rows: with colours and as wide as the terminal on one, and aligned and uncut elsewhere.

    Args:
        rows: objects as the API answers them.
        columns: what to show of each.
        empty: the sentence for no rows; it goes to stderr.
    """
    if not rows:
        click.echo(empty, err=True)
        return
    cells = [[_shown(_value(row, of)) for _, of in columns] for row in rows]
    headings = [heading for heading, _ in columns]
    if sys.stdout.isatty():
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for number, heading in enumerate(headings):
            is_number = all(line[number].replace(".", "", 1).isdigit() for line in cells)
            shown.add_column(heading, justify="right" if is_number else "left", overflow="fold")
        for line in cells:
            shown.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in line))
        Console().print(shown)
        return
    widths = [max(len(line[number]) for line in [headings, *cells]) for number in range(len(headings))]
    for line in [headings, *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def columns_of(paths: str, rows: Sequence[Row]) -> list[Column]:
    """The columns that `--output` names.

    Raises:
        click.BadParameter: a name is no field of the rows.
    """
    names = [name.strip() for name in paths.split(",") if name.strip()]
    for name in names:
        if rows and name.partition(".")[0] not in rows[0]:
            raise click.BadParameter(f"there is no {name!r}; there is: {', '.join(rows[0])}.", param_hint="--output")
    return [(name.upper(), name) for name in names]


def details(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line; those without a value are left out."""
    kept = [(name, _shown(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in kept), default=0) + 2
    for name, value in kept:
        styled = click.style(value, fg=_colour(value)) if sys.stdout.isatty() else value
        click.echo(f"{name:<{width}}{styled}")


def as_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def as_json_line(value: object) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def note(text: str) -> None:
    """Tell a person something that is not the output."""
    text = safe(text)
    click.echo(click.style(text, dim=True) if sys.stderr.isatty() else text, err=True)


def age(value: str | None) -> str:
    """How long ago a time was."""
    if not value:
        return ""
    return duration((datetime.now(UTC) - datetime.fromisoformat(value)).total_seconds())


def duration(seconds: float | None) -> str:
    """A duration in its two largest units."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    left, parts = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def labels(row: Row) -> str:
    """Labels as name=value."""
    return ",".join(f"{name}={value}" for name, value in row["labels"].items())


def rejections(row: Row) -> str:
    """How many hosts fail each check."""
    return ", ".join(f"{one['code']} {one['hosts']}" for one in row["rejections"])


def safe(text: object) -> str:
    """Text of a server for a terminal: what could move its cursor or forge a line is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def say(text: str, *, err: bool = False) -> None:
    """Print lines of text in which a server's words may be; only our own line ends are kept."""
    for line in text.split("\n"):
        click.echo(safe(line), err=err)


def _value(row: Row, of: str | Callable[[Row], object]) -> object:
    return at(row, of) if isinstance(of, str) else of(row)


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | dict():
            return safe(json.dumps(value, ensure_ascii=False))
        case _:
            return safe(value)


def _colour(value: str) -> str | None:
    style = STYLES.get(value)
    return None if style in (None, "dim") else style
