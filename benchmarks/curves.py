"""How the time of one committed decision grows with the fleet and with the active jobs, as a table and as a drawing.

    python -m benchmarks.curves --database-url postgresql://… [--svg docs/decision-curves.svg] [--json -]

The database is emptied. Beside each decision: pgbench's time for the same rows, written without a decision.
"""

import argparse
import math
import os
from pathlib import Path
from typing import NamedTuple

from benchmarks import fleet
from benchmarks.routing import single_decisions

HOSTS, ACTIVE = (10, 100, 1000, 10_000), (0, 1000, 10_000, 100_000)
WIDTH, HEIGHT, LEFT, BOTTOM = 420, 260, 56, 40
COLOURS = ("#1b6ca8", "#c2410c", "#6b7280")


class Line(NamedTuple):
    """A line of a drawing: its name, and points of an axis value and milliseconds."""

    name: str
    points: list[tuple[int, float]]


def _panel(x: int, title: str, lines: list[Line], highest: float) -> list[str]:
    """A drawing with a logarithmic axis for the size and a linear one for the time."""
    values = sorted({value for line in lines for value, _ in line.points})
    widest = math.log10(max(values[-1], 10))

    def place(value: int, ms: float) -> tuple[float, float]:
        across = math.log10(max(value, 1)) / widest * (WIDTH - LEFT - 20)
        return x + LEFT + across, HEIGHT - BOTTOM - ms / highest * (HEIGHT - BOTTOM - 40)

    parts = [f'<text x="{x + LEFT}" y="18" font-weight="bold">{title}</text>']
    for tick in range(5):
        ms = highest * tick / 4
        _, y = place(1, ms)
        parts.append(f'<line x1="{x + LEFT}" x2="{x + WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{ms:.0f} ms</text>')
    for value in values:
        across, _ = place(value, 0)
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:,}</text>')
    for number, (line, colour) in enumerate(zip(lines, COLOURS, strict=False)):
        points = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + LEFT + 8}" y="{36 + 15 * number}" fill="{colour}">{line.name}</text>')
    return parts


def drawing(panels: dict[str, list[Line]]) -> str:
    """The panels beside each other as an SVG document."""
    highest = max(ms for lines in panels.values() for line in lines for _, ms in line.points)
    highest = math.ceil(highest / 4) * 4.0
    parts = [
        part
        for number, (title, lines) in enumerate(panels.items())
        for part in _panel(number * WIDTH, title, lines, highest)
    ]
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11" fill="#333">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default=os.environ.get("CONTAINER_MANAGER_DATABASE_URL", ""))
    parser.add_argument("--hosts", default=",".join(map(str, HOSTS)))
    parser.add_argument("--active", default=",".join(map(str, ACTIVE)))
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--svg", help="draw the curves into this file")
    parser.add_argument("--json", help="write the figures to this file, - for stdout")
    arguments = parser.parse_args()
    hosts, active = ([int(part) for part in given.split(",")] for given in (arguments.hosts, arguments.active))
    table = fleet.Table(postgresql=fleet.prepare(arguments.database_url) == "postgresql")
    fixed = hosts[-2:][0]
    sizes = dict.fromkeys([*((count, 0) for count in hosts), *((fixed, jobs) for jobs in active)])
    found = {size: single_decisions(table, *size, arguments.times) for size in sizes}
    panels = {
        "hosts, without active jobs": [(count, found[count, 0]) for count in hosts],
        f"active jobs, {fixed:,} hosts": [(jobs, found[fixed, jobs]) for jobs in active],
    }
    if arguments.svg:
        lines = {
            title: [
                Line("one committed decision", [(size, figures["durable_ms"]) for size, figures in points]),
                Line("its rows by pgbench", [(size, figures.get("pgbench_ms", 0.0)) for size, figures in points]),
            ]
            for title, points in panels.items()
        }
        Path(arguments.svg).write_text(drawing(lines))
    if arguments.json:
        table.as_json(arguments.json)


if __name__ == "__main__":
    main()
