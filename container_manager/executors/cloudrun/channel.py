"""The gRPC channel to one region, with the host's credentials."""

import asyncio
import re

import google.auth
import grpc
from google.auth import exceptions as auth_errors
from google.auth.credentials import Credentials
from google.cloud.run_v2.services.jobs.transports import JobsGrpcAsyncIOTransport
from google.oauth2 import service_account

from container_manager.executors.configs import CloudRunConfig
from container_manager.executors.exceptions import ExecutorHostError

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
CHANNEL = [
    # The defaults would notice only after several seconds that a server is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


def default_endpoint(config: CloudRunConfig) -> str:
    """Google's endpoint of the region; the global endpoint does not serve executions."""
    return f"{config.region}-run.googleapis.com"


async def open_channel(name: str, config: CloudRunConfig, endpoint: str) -> grpc.aio.Channel:
    """A channel with the host's credentials. Must be called in the event loop that will use it.

    Raises:
        ExecutorHostError: there are no credentials, or they cannot be read.
    """
    if config.plaintext:
        return grpc.aio.insecure_channel(endpoint, options=CHANNEL)
    # In a thread, because it reads files and may ask a metadata server, which blocks.
    credentials = await asyncio.to_thread(_credentials, name, config)
    target = endpoint if re.search(r":\d+$", endpoint) else f"{endpoint}:443"
    return JobsGrpcAsyncIOTransport.create_channel(target, credentials=credentials, scopes=SCOPES, options=CHANNEL)


def _credentials(name: str, config: CloudRunConfig) -> Credentials:
    try:
        if config.credentials == "adc":
            found: Credentials = google.auth.default(scopes=SCOPES)[0]
        else:
            found = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                config.credentials, scopes=SCOPES
            )
    except auth_errors.DefaultCredentialsError as error:
        raise ExecutorHostError(
            f"host {name}: config.credentials: there are no application default credentials on this machine; log in "
            f"with gcloud auth application-default login, or give the path of a service account's key file ({error})."
        ) from error
    except (OSError, ValueError, auth_errors.GoogleAuthError) as error:
        raise ExecutorHostError(
            f"host {name}: config.credentials: {config.credentials!r} is not a service account's key file that this "
            f"service can read ({error})."
        ) from error
    return found
