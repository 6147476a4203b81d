"""What the documentation shows, to be tried by tests."""

import re
from typing import NamedTuple

from container_manager.environment import Environment
from tests.processes import ROOT

SETTINGS = {f"CONTAINER_MANAGER_{name.upper()}" for name in Environment.model_fields}
"""The variables of the environment that the service reads."""

FENCE = re.compile(r'^```(\w*)(?: title="(.*?)")?\n(.*?)^```$', re.M | re.S)


class Block(NamedTuple):
    """A fenced block: its language, its title (the file that it belongs into), and its text."""

    language: str
    title: str
    text: str


def page(name: str) -> list[Block]:
    """The blocks of a page of docs/, or of README.md."""
    path = ROOT / name if name == "README.md" else ROOT / "docs" / name
    return [Block(*found) for found in FENCE.findall(path.read_text())]


def blocks(name: str, language: str) -> list[str]:
    """The blocks of one language on a page."""
    return [block.text for block in page(name) if block.language == language]
