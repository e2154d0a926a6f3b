"""The session's own keys and values, which outlive restarts and versions."""

from __future__ import annotations

import json
from typing import Any

from . import errors
from ._host import atomics, store


class Bucket:
    """A named part of the session's store. It exists while it holds a key.

    A call into the pipeline is a transaction: what it writes is kept when it returns.
    """

    def __init__(self, name: str) -> None:
        self._bucket = errors.call(store.open, name)

    def get(self, key: str) -> bytes | None:
        """The value of a key."""
        value = errors.call(self._bucket.get, key)
        return None if value is None else bytes(value)

    def set(self, key: str, value: bytes) -> None:
        """Writes a value."""
        errors.call(self._bucket.set, key, value)

    def delete(self, key: str) -> None:
        """Removes a key, if it is there."""
        errors.call(self._bucket.delete, key)

    def get_json(self, key: str) -> Any:
        """The value of a key, which is JSON; `None` where there is no such key."""
        value = self.get(key)
        return None if value is None else json.loads(value)

    def set_json(self, key: str, value: Any) -> None:
        """Writes a value as JSON."""
        self.set(key, json.dumps(value).encode())

    def increment(self, key: str, by: int = 1) -> int:
        """Adds to a number, kept as decimal text; gives the sum."""
        return int(errors.call(atomics.increment, self._bucket, key, by))
