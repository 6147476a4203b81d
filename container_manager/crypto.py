"""Encryption at rest and keyed hashes, from the configured secret keys."""

import base64
import hashlib
import hmac
from functools import cache

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from container_manager import configuration


class WrongKeyError(Exception):
    """A stored value was encrypted with a key that is not configured."""


@cache
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derive(key, b"encrypt"))) for key in keys])


@cache
def _derive(key: str, purpose: bytes) -> bytes:
    return hmac.digest(key.encode(), b"container-manager " + purpose, "sha256")


@cache
def _keys() -> tuple[str, ...]:
    return configuration.current().secret_keys()


def encrypt(value: object) -> bytes:
    """Encrypt a JSON value."""
    return _fernet(_keys()).encrypt(orjson.dumps(value))


def decrypt(data: bytes) -> object:
    """Undo `encrypt`.

    Raises:
        WrongKeyError: `data` was encrypted with none of the configured keys.
    """
    try:
        return orjson.loads(_fernet(_keys()).decrypt(data))
    except InvalidToken as error:
        raise WrongKeyError(
            "CONTAINER_MANAGER_SECRET_KEY is not the key that this database was written with"
        ) from error


def is_current(data: bytes) -> bool:
    """Whether the first key has encrypted this."""
    try:
        _fernet(_keys()[:1]).decrypt(data)
    except InvalidToken:
        return False
    return True


def fingerprints() -> list[str]:
    """What identifies the configured keys without telling them, the first one first."""
    return [_derive(key, b"fingerprint").hex()[:16] for key in _keys()]


def keyed_hashes(*parts: str) -> list[str]:
    """Hashes that cannot be computed without a key, one for each configured key, the first one first."""
    message = orjson.dumps(parts)
    return [hmac.new(_derive(key, b"hash"), message, hashlib.sha256).hexdigest() for key in _keys()]
