"""The event loops that tests of coroutines run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop

_T = TypeVar("_T")


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """Cannot watch a descriptor, as the loop of Windows cannot."""

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        raise NotImplementedError

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        raise NotImplementedError


def run_without_readers(main: Coroutine[Any, Any, _T]) -> _T:
    """`asyncio.run` on such a loop."""
    loop = LoopWithoutReaders()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


RUNNERS = [
    pytest.param(asyncio.run, id="asyncio"),
    pytest.param(uvloop.run, id="uvloop"),
    pytest.param(run_without_readers, id="without_readers"),
]
