"""Starts operating system threads for token providers, also when gevent or eventlet patch `threading`.

A patched `threading.Thread` is a greenlet. A greenlet that waits inside Rust would stop all others.
"""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def start(name: str, target: Callable[..., object], *args: object) -> None:
    """Starts a daemon thread.

    Raises:
        RuntimeError: The system cannot start another thread.
    """
    unpatched = _unpatched_start()
    if unpatched is None:
        threading.Thread(target=target, args=args, name=name, daemon=True).start()
    else:
        unpatched(target, args)


def _unpatched_start() -> Callable[..., object] | None:
    """Returns the original `_thread.start_new_thread` if it is patched, else None."""
    start: Callable[..., object] | None = None
    gevent = sys.modules.get("gevent.monkey")
    eventlet = sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_object_patched("_thread", "start_new_thread"):
        start = gevent.get_original("_thread", "start_new_thread")
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        start = eventlet.original("_thread").start_new_thread
    return start
