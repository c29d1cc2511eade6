"""Waits for conditions."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def eventually(condition: Callable[[], object]) -> None:
    """Waits until the condition is true, 10 s at most."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


async def eventually_async(condition: Callable[[], object]) -> None:
    """`eventually` on an event loop."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.005)
    assert condition()
