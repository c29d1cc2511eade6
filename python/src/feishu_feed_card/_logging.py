"""Hands the client's reports to `logging` and to `on_event`. Imported when somebody listens."""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import traceback

from feishu_feed_card import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    _Caller = tuple[str, int, str]

_logger = logging.getLogger("feishu_feed_card")

_SKIPPED = frozenset({"feishu_feed_card", "asyncio", "contextvars", "uvloop", "gevent", "eventlet"})
"""Packages whose frames are not the caller's."""

atexit.register(_native.flush_logs)


def caller() -> _Caller:
    """The file, line and function of the code that called into this package."""
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
    """Hands records to the handlers. Each has a level, a time, a message and fields."""
    for level, created, message, fields in records:
        _guarded(_handle, level, created, message, fields, caller)
    if dropped:
        message = "log records or events were dropped: more than 10,000 were waiting"
        _guarded(_handle, logging.WARNING, None, message, {"dropped": dropped}, caller)


def tell(on_event: Callable[[dict[str, Any]], object], events: list[dict[str, Any]]) -> None:
    """Calls a call's `on_event` for each event."""
    for event in events:
        _guarded(on_event, event)


def _handle(level: int, created: float | None, message: str, fields: dict[str, Any], caller: _Caller) -> None:
    # The logger's own level let it through when it was made.
    if logging.root.manager.disable >= level:
        return
    shown = ", ".join([f"{name}={value}" for name, value in fields.items()])
    text = f"{message} ({shown})" if shown else message
    file, line, function = caller
    record = _logger.makeRecord(_logger.name, level, file, line, text, (), None, function, fields)
    if created is not None:
        record.relativeCreated += (created - record.created) * 1000
        record.created = created
        record.msecs = float(int(created % 1 * 1000))
    _logger.handle(record)


def _guarded(function: Callable[..., object], *args: object) -> None:
    """Calls someone else's code, and prints its exception, as `logging` does with a handler's.

    KeyboardInterrupt and others that are no `Exception` go on to the caller.
    """
    try:
        function(*args)
    except Exception:
        if logging.raiseExceptions and sys.stderr is not None:
            # It may be closed.
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc()
