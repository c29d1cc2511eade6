"""The event loops on which tests of coroutines run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar

import pytest

import needs

_T = TypeVar("_T")


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, like Windows' proactor loop."""

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        raise NotImplementedError

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        raise NotImplementedError


def run_without_readers(main: Coroutine[Any, Any, _T]) -> _T:
    """`asyncio.run` on a `LoopWithoutReaders`."""
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


def run_uvloop(main: Coroutine[Any, Any, _T]) -> _T:
    """`uvloop.run`, imported late because Windows has no uvloop."""
    import uvloop

    return uvloop.run(main)


def new_uvloop() -> asyncio.AbstractEventLoop:
    """A new uvloop."""
    import uvloop

    return uvloop.new_event_loop()


RUNNERS = [
    pytest.param(asyncio.run, id="asyncio"),
    pytest.param(run_uvloop, id="uvloop", marks=needs.uvloop),
    pytest.param(run_without_readers, id="without_readers"),
]

INSTALLED_RUNNERS = [asyncio.run, run_without_readers, *([run_uvloop] if find_spec("uvloop") else [])]

NEW_LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(new_uvloop, id="uvloop", marks=needs.uvloop),
]
