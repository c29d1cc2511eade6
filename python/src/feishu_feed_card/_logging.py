"""Passes log records to `logging`, and events to `on_event`.

Imported together with the package and not on first use: a child process that is forked while another thread
imports a module would wait forever for that module. To keep the package's import fast, this module imports
others only when it needs them.
"""

from __future__ import annotations

import sys

from feishu_feed_card import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    _Caller = tuple[str, int, str]

_SKIPPED = frozenset({"feishu_feed_card", "asyncio", "contextvars", "uvloop", "gevent", "eventlet"})
"""Packages whose frames `caller` skips."""


def flush_at_exit() -> None:
    """Registers a flush of the log at the interpreter's exit. Called after the import of `logging`."""
    import atexit

    atexit.register(_native.flush_logs)


def caller() -> _Caller:
    """Returns the file, line and function of the code that called this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _SKIPPED:
            return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back
    return "(unknown file)", 0, "(unknown function)"


def handle(
    records: list[tuple[int, float, str, dict[str, Any]]],
    dropped: int,
    caller: _Caller,
) -> None:
    """Passes records to the handlers of `logging`. A record has a level, a time, a message and fields."""
    for level, created, message, fields in records:
        _guarded(_handle, level, created, message, fields, caller)
    if dropped:
        import logging

        message = "log records or events were dropped: more than 10,000 were waiting"
        _guarded(_handle, logging.WARNING, None, message, {"dropped": dropped}, caller)


def call_on_event(on_event: Callable[[dict[str, Any]], object], events: list[dict[str, Any]]) -> None:
    """Calls `on_event` with each event."""
    for event in events:
        _guarded(on_event, event)


def _handle(level: int, created: float | None, message: str, fields: dict[str, Any], caller: _Caller) -> None:
    import logging

    # The logger's level was checked when the record was made. `logging.disable` was not.
    if logging.root.manager.disable >= level:
        return
    shown = ", ".join([f"{name}={value}" for name, value in fields.items()])
    text = f"{message} ({shown})" if shown else message
    file, line, function = caller
    logger = logging.getLogger("feishu_feed_card")
    record = logger.makeRecord(logger.name, level, file, line, text, (), None, function, fields)
    if created is not None:
        record.relativeCreated += (created - record.created) * 1000
        record.created = created
        record.msecs = float(int(created % 1 * 1000))
    logger.handle(record)


def _guarded(function: Callable[..., object], *args: object) -> None:
    """Calls a handler or callback, and prints its exception, as `logging` does for handlers.

    Exceptions outside `Exception`, such as KeyboardInterrupt, are passed on.
    """
    try:
        function(*args)
    except Exception:
        import logging
        import traceback

        if logging.raiseExceptions and sys.stderr is not None:
            try:  # noqa: SIM105 -- would import contextlib
                traceback.print_exc()
            except (OSError, ValueError):
                pass  # stderr is closed
