"""The errors of executors.

ExecutorError
├── ExecutorConfigurationError     the job's or the host's settings can never work as they are
│   ├── ExecutorHostError          the host's settings: another host may run the job
│   └── ExecutorLackError          the host lacks what this job needs: another host may have it
│       └── ExecutorPlatformError  the image does not exist for the host's platform
├── ExecutorResourceError          there is no room
│   └── ExecutorPullQuotaError     a registry lets the host pull no more for a while
├── ExecutorConnectionError        no answer: the call may or may not have had its effect
│   └── ExecutorClosedError        this service closed the connection itself
├── ExecutorAuthenticationError    credentials are missing or were refused
└── ExecutorOperationError         the executor answered, and refused or failed
    └── ExecutorImageError         the image could not be brought to the host
"""

LONGEST_MESSAGE = 500


def clean(text: str) -> str:
    """Foreign text as one line that can be stored and printed: without control characters, at most 500 characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_MESSAGE]).split())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"


class ExecutorError(Exception):
    """The executor could not perform an operation. The message is cleaned, because it may repeat what a host says."""

    def __init__(self, message: str = "") -> None:
        super().__init__(clean(message))


class ExecutorConfigurationError(ExecutorError):
    """The settings are wrong, so that a repeated call would fail in the same way."""


class ExecutorHostError(ExecutorConfigurationError):
    """The host's settings are wrong, whatever the job."""


class ExecutorLackError(ExecutorConfigurationError):
    """The host lacks what this job needs: an image, a network, a permission for jobs. Others may run there."""


class ExecutorPlatformError(ExecutorLackError):
    """The image does not exist for the host's platform, which is no fault of the host."""


class ExecutorResourceError(ExecutorError):
    """There is no room for the job, or a quota is used up."""


class ExecutorPullQuotaError(ExecutorResourceError):
    """A registry lets the host pull no more for a while."""


class ExecutorConnectionError(ExecutorError):
    """The host did not answer. The call may have had its effect nevertheless."""


class ExecutorClosedError(ExecutorConnectionError):
    """The host's settings were changed during the call; a new executor must be used."""


class ExecutorAuthenticationError(ExecutorError):
    """Credentials are missing or were refused."""


class ExecutorOperationError(ExecutorError):
    """The host answered that it refuses the operation or that it failed."""


class ExecutorImageError(ExecutorOperationError):
    """The image could not be brought to the host, which says nothing about jobs of other images."""
