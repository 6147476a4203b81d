"""Run one task of Django's in this container, and tell its result: see container_manager.tasks."""

import json
import os
import sys
import traceback
from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand
from django.utils.module_loading import import_string

from container_manager.tasks import LONGEST_RESULT, MARK


class Command(BaseCommand):
    """The entry point of a task's container."""

    help = "Run one task of Django's, as container_manager.tasks asks for, and print its result."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="its path, such as shop.tasks.send_invoice")
        parser.add_argument("call", help='its arguments: {"args": [], "kwargs": {}}')

    def handle(self, *_: Any, task: str, call: str, **__: Any) -> None:
        """Call the task. The exit code is 1 when it raises an error."""
        given = json.loads(call)
        try:
            value = import_string(task).call(*given["args"], **given["kwargs"])
            line = json.dumps({"value": value})
            if len(line) > LONGEST_RESULT:
                raise ValueError(f"the result has {len(line)} characters as JSON; at most {LONGEST_RESULT} are kept")
        except Exception as error:  # noqa: BLE001 - any error of a task is its result
            trace = traceback.format_exc()
            self.stderr.write(trace)
            kind = type(error)
            path = f"{kind.__module__}.{kind.__qualname__}"
            line = json.dumps({"error": path, "traceback": trace[-LONGEST_RESULT // 2 :]})
            self._tell(line)
            sys.exit(1)
        self._tell(line)

    def _tell(self, line: str) -> None:
        # On a line of its own, also after a line that the task has not ended.
        self.stdout.write(f"{os.linesep}{MARK}{line}")
