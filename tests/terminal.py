"""Programs in a pseudo-terminal."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from pathlib import Path

from tests.eventually import eventually_sync

ROWS, COLUMNS = 40, 140


def _own_the_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Tests that run in the background of a shell have inherited that it is ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A program whose three streams are a terminal of 40 by 140. `text` is all that it has written."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**env, "TERM": "xterm-256color"}, cwd=cwd,
            start_new_session=True, preexec_fn=_own_the_terminal,  # noqa: PLW1509
        )  # fmt: skip
        os.close(slave)
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return self._written.decode(errors="replace").replace("\r\n", "\n")

    def shows(self, text: str, timeout: float = 20) -> None:
        """Wait until it has written this."""
        eventually_sync(lambda: text in self.text, timeout, f"{text!r} in {self.text!r}")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def ends(self, timeout: float = 30) -> int:
        """Its exit code, once all it has written was read."""
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self._reader.join(5)
        os.close(self._master)

    def _read(self) -> None:
        # The end of the program is an error of the terminal's master.
        try:
            while part := os.read(self._master, 65536):
                self._written += part
        except OSError:
            pass
