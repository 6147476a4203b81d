"""The progress of a launch."""

import asyncio
import time

from container_manager.executors.output import OutputLine


class LaunchProgress:
    """Messages of an executor during a launch. The latest is shown; the first and the last stay in the output."""

    def __init__(self) -> None:
        self._lines: list[OutputLine] = []
        self._new = asyncio.Event()

    def report(self, message: str) -> None:
        """Take a message from the executor."""
        self._lines[1:] = [OutputLine("stderr", time.time_ns(), message)]
        if len(self._lines) == 1 or self._lines[0].text == message:
            del self._lines[1:]
        self._new.set()

    async def next_message(self) -> str:
        """Wait for a new message."""
        await self._new.wait()
        self._new.clear()
        return self._lines[-1].text

    def notes(self) -> list[OutputLine]:
        """The lines that stay in the attempt's output."""
        return [line._replace(text=f"[container-manager: {line.text}]") for line in self._lines]
