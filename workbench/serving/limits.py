"""What one address, and all together, may ask of a served model: how often, how much, how many at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

BODY_SECONDS = 30.0
"""For all of a request's body to arrive; a choice of this project."""
MOST_ADDRESSES = 10_000
"""That are remembered at once; a choice of this project."""


@dataclass(frozen=True)
class Limits:
    """What is allowed.

    Args:
        upload_bytes: Of one request's body.
        per_minute: Pictures from one address; as many may come at once after a quiet minute.
        waiting: Pictures that may wait while one is answered.
    """

    upload_bytes: int
    per_minute: int
    waiting: int


class RequestError(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        told: Why, in words.
        retry_seconds: When to try again, if that would help.
    """

    def __init__(self, status: int, told: str, retry_seconds: int | None = None):
        super().__init__(told)
        self.status, self.told, self.retry_seconds = status, told, retry_seconds


class Gate:
    """Counts requests of addresses, and lets one picture after the other through.

    Args:
        limits: What is allowed.
        clock: Seconds that only grow.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic):
        self.limits, self._clock = limits, clock
        self._left: dict[str, tuple[float, float]] = {}
        self._waiting, self._one = 0, asyncio.Lock()

    def count(self, address: str) -> None:
        """Count a request.

        Raises:
            RequestError: 429, if this address has asked too often.
        """
        now, most = self._clock(), self.limits.per_minute
        left, since = self._left.pop(address, (float(most), now))
        left = min(float(most), left + (now - since) * most / 60)
        allowed = left >= 1
        self._left[address] = left - allowed, now  # at the end again: the first is the one not heard of for longest
        if len(self._left) > MOST_ADDRESSES:
            del self._left[next(iter(self._left))]
        if not allowed:
            wait = math.ceil((1 - left) * 60 / most)
            raise RequestError(429, f"more than {most} pictures a minute; try again in {wait} s", wait)

    async def body(self, chunks: AsyncIterator[bytes], stated: str | None) -> bytes:
        """Read a body no further than is allowed.

        Args:
            chunks: Its parts.
            stated: Its length as the request says it, if it does.

        Raises:
            RequestError: 413 if it is too long, 408 if it comes too slowly, 400 if it is empty.
        """
        most = self.limits.upload_bytes
        too_long = RequestError(413, f"more than {most / 1e6:g} MB; send a smaller file")
        if stated is not None and stated.isdecimal() and int(stated) > most:
            raise too_long
        read = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in chunks:
                    read += chunk
                    if len(read) > most:
                        raise too_long
        except TimeoutError as error:
            raise RequestError(408, f"the picture did not arrive within {BODY_SECONDS:g} s") from error
        if not read:
            raise RequestError(400, "no picture: send the file's bytes as the body")
        return bytes(read)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for this request's turn; one at a time has it.

        Raises:
            RequestError: 503, if too many wait already.
        """
        if self._waiting > self.limits.waiting:  # the one whose turn it is counts too
            raise RequestError(503, f"{self.limits.waiting} pictures are waiting already; try again in a moment", 2)
        self._waiting += 1
        try:
            async with self._one:
                yield
        finally:
            self._waiting -= 1
