"""The servers that a user has logged in to, with their tokens, in a file that only the user can read."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import platformdirs

VARIABLES = ("URL", "TOKEN", "CONTEXT")
DEFAULT_SERVER = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Context:
    """One server and the token for it."""

    server: str
    token: str


@dataclass
class Contexts:
    """All contexts by name, and which of them is used when a command names none."""

    current: str = ""
    contexts: dict[str, Context] = field(default_factory=dict)

    @classmethod
    def load(cls) -> "Contexts":
        """The contexts that were kept.

        Raises:
            click.ClickException: the file cannot be read.
        """
        path = _path()
        try:
            kept = json.loads(path.read_text())
            return cls(kept["current"], {name: Context(**values) for name, values in kept["contexts"].items()})
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise click.ClickException(f"{path} cannot be read ({error}): mend or remove it.") from error

    def save(self) -> None:
        """Keep the contexts.

        Raises:
            click.ClickException: the file cannot be written.
        """
        path = _path()
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(asdict(self), indent=2))
            draft.replace(path)
        except OSError as error:
            raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from error

    def get(self, name: str) -> Context:
        """The context with this name.

        Raises:
            click.ClickException: there is none.
        """
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise click.ClickException(f"There is no context {name!r} (there is: {known}); `login` makes one.")
        return self.contexts[name]


def chosen(server: str | None, token: str | None, context: str | None) -> Context:
    """The server and token of a command: from its options, or else from the environment, or else from a context.

    What is said on the command line comes before the environment, and there a context before a server. A kept token is
    sent only to the server for which it was kept, and one of the environment not to the server of a context.
    """
    contexts, given = Contexts.load(), {name: os.environ.get(f"CONTAINER_MANAGER_{name}") for name in VARIABLES}
    if context is None and server is None:
        context, server = given["CONTEXT"], given["URL"]
        if context is None and server is None and contexts.current and token is None:
            context = contexts.current
    if context is not None:
        kept = contexts.get(context)
        same = server is None or _is_same(server, kept.server)
        return Context(server or kept.server, token or (kept.token if same else ""))
    server = server or DEFAULT_SERVER
    token = token or given["TOKEN"]
    if token is None:
        found = (kept.token for kept in contexts.contexts.values() if _is_same(kept.server, server))
        token = next(found, "")
    return Context(server, token)


def _is_same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _path() -> Path:
    return platformdirs.user_config_path("container-manager") / "contexts.json"
