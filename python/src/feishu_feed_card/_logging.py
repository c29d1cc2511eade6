"""Hands the client's records to `logging`. Imported when the program has, and wants them."""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import traceback

from feishu_feed_card import _native, _threads

_FLUSHES_FOR = 2.0
"""How many seconds the interpreter's end waits for handlers that are slow."""

_THREAD = "feishu-feed-card logging"

_logger = logging.getLogger("feishu_feed_card")


def start() -> None:
    """Starts the thread that does it, in this process."""
    _threads.start(_THREAD, _hand_over)
    atexit.register(_flush, _native.process_id())


def _flush(process: int) -> None:
    # A fork's child inherits this, but not the thread.
    if process == _native.process_id():
        _native.close_log(_FLUSHES_FOR)


def _hand_over() -> None:
    while (taken := _native.next_log_records()) is not None:
        records, dropped = taken
        for record in records:
            _handle(*record)
        if dropped:
            message = "records were dropped: the handlers are too slow"
            _handle(logging.WARNING, None, message, {"dropped": dropped})


def _handle(level: int, created: float | None, message: str, fields: dict[str, object]) -> None:
    try:
        # The logger's own level let it through when it was made.
        if logging.root.manager.disable >= level:
            return
        shown = ", ".join([f"{name}={value}" for name, value in fields.items()])
        text = f"{message} ({shown})" if shown else message
        record = _logger.makeRecord(_logger.name, level, "", 0, text, (), None, None, fields)
        if created is not None:
            record.relativeCreated += (created - record.created) * 1000
            record.created = created
            record.msecs = float(int(created % 1 * 1000))
        if record.threadName is not None:
            record.threadName = _THREAD  # also of a thread that `threading` did not start
        _logger.handle(record)
    except BaseException:
        # As `logging` does with a handler that fails; the next record may fare better, and a SystemExit would
        # end this thread alone.
        if logging.raiseExceptions and sys.stderr is not None:
            # It may be closed.
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc()
