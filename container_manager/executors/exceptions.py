"""What can go wrong at an executor.

ExecutorError
├── ExecutorConfigurationError     the job's or the host's settings can never work as they are
│   └── ExecutorHostError          the host's: another host may do
├── ExecutorResourceError          there is no room
├── ExecutorConnectionError        no answer: what was asked for may or may not have happened
│   └── ExecutorClosedError        we hung up ourselves
├── ExecutorAuthenticationError    credentials are missing or were refused
└── ExecutorOperationError         the executor answered, and refused or failed
"""


class ExecutorError(Exception):
    """The executor could not do what was asked."""


class ExecutorConfigurationError(ExecutorError):
    """The settings are wrong; trying again changes nothing."""


class ExecutorHostError(ExecutorConfigurationError):
    """The host's settings are wrong, whatever the job."""


class ExecutorResourceError(ExecutorError):
    """There is no room for the job."""


class ExecutorConnectionError(ExecutorError):
    """The executor did not answer. The call may have had its effect all the same."""


class ExecutorClosedError(ExecutorConnectionError):
    """The host's settings were changed while the call was under way; ask a new executor."""


class ExecutorAuthenticationError(ExecutorError):
    """Credentials are missing or were refused."""


class ExecutorOperationError(ExecutorError):
    """The executor refused the operation or failed at it."""
