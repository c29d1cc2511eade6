"""Threads for token providers, real ones also where gevent or eventlet patch `threading`.

A patched `threading.Thread` is a greenlet: one that waits inside Rust would stop all of them.
"""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def start(name: str, target: Callable[..., object], *args: object) -> None:
    """Starts a thread that does not keep the interpreter from ending.

    Raises:
        RuntimeError: The system has no thread left.
    """
    unpatched = _unpatched_start()
    if unpatched is None:
        threading.Thread(target=target, args=args, name=name, daemon=True).start()
    else:
        unpatched(target, args)


def _unpatched_start() -> Callable[..., object] | None:
    """The `_thread.start_new_thread` of before the patch; None where nothing patched it."""
    start: Callable[..., object] | None = None
    gevent = sys.modules.get("gevent.monkey")
    eventlet = sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_object_patched("_thread", "start_new_thread"):
        start = gevent.get_original("_thread", "start_new_thread")
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        start = eventlet.original("_thread").start_new_thread
    return start
