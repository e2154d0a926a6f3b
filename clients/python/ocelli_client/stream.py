"""Server-sent events, and the pauses between two connections."""

from __future__ import annotations

import random
from collections.abc import AsyncIterable, AsyncIterator

MAX_LINE = 64 << 20
"""Bytes of a line: four times what the host keeps for one subscriber."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds: a host restarts within one, and after a long failure it is found soon enough."""


async def messages(chunks: AsyncIterable[bytes]) -> AsyncIterator[tuple[int | None, str]]:
    """The `id` of each message, if it has one, and its `data`, which is empty where an `id` comes
    alone. The host writes each on one line; comments are passed over."""
    rest = bytearray()
    number: int | None = None
    data = ""
    async for chunk in chunks:
        rest += chunk
        if b"\n" not in chunk:
            if len(rest) > MAX_LINE:
                raise ValueError("a line without end")
            continue
        *lines, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in lines:
            if line.startswith(b"id:"):
                number = int(line[3:])
            elif line.startswith(b"data:"):
                data = line[5:].strip().decode()
            elif not line.strip() and (data or number is not None):
                yield number, data
                number, data = None, ""


class Backoff:
    """How long to wait before the next connection."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """A message has come."""
        self._failures = 0

    def next(self) -> float:
        """Seconds, doubled with each failure in a row. Half of it is random: clients of a host
        that was restarted do not all come at once."""
        longest = min(FIRST_PAUSE * 2.0 ** min(self._failures, 16), LONGEST_PAUSE)
        self._failures += 1
        return longest * random.uniform(0.5, 1.0)
