"""The apiKey: its digest, and whether a given key is the right one."""

import functools
import hmac
import os

from noojee_agi.errors import KeyRefused
from noojee_agi.recordings.snapshot import Knowledge

_SALT_BYTES = 16


def digest(key: str) -> str:
    """A salted digest of the apiKey, the only form in which it is stored."""
    salt = os.urandom(_SALT_BYTES).hex()
    return f"hmac-sha256${salt}${_mac(salt, key)}"


def matches(key: str, stored: str) -> bool:
    """Whether key is the one behind the stored digest; compared in constant time."""
    scheme, _, rest = stored.partition("$")
    salt, _, mac = rest.partition("$")
    if scheme != "hmac-sha256" or not key:
        return False
    try:
        return hmac.compare_digest(mac.encode(), _mac(salt, key).encode())
    except ValueError:  # a damaged salt
        return False


def require_key(key: str, knowledge: Knowledge) -> None:
    """Check a call's apiKey; before a refusal the database is asked, since the key may just have changed.

    Raises KeyRefused.
    """
    if not key:
        raise KeyRefused("the channel variable apiKey is missing or empty: set it, or a global apiKey")
    snapshot = knowledge.current()
    if snapshot is not None and matches(key, snapshot.key_digest):
        return
    snapshot = knowledge.renewed()
    if snapshot is None:
        raise KeyRefused("apiKey cannot be checked, the database does not answer: run noojee-agi check")
    if not snapshot.key_digest:
        raise KeyRefused("this system has no apiKey yet: run noojee-agi apikey new")
    if not matches(key, snapshot.key_digest):
        raise KeyRefused("the channel variable apiKey is not this system's key: see noojee-agi apikey --help")


def _mac(salt: str, key: str) -> str:
    mac = _salted(salt).copy()
    mac.update(key.encode("utf-8", "replace"))
    return mac.hexdigest()


@functools.lru_cache(maxsize=2)
def _salted(salt: str) -> hmac.HMAC:
    """The half of the work that is the same for every key. Raises ValueError when salt is damaged."""
    return hmac.new(bytes.fromhex(salt), digestmod="sha256")
