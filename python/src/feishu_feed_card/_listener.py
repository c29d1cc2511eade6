"""For event loops that cannot watch a descriptor: a thread hears the bell and tells the loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from feishu_feed_card._native import Calls


def start(loop: AbstractEventLoop, calls: Calls) -> None:
    """Listens until the loop is closed."""
    threading.Thread(target=_listen, args=(loop, calls), name="feishu-feed-card bell", daemon=True).start()


def _listen(loop: AbstractEventLoop, calls: Calls) -> None:
    while not loop.is_closed():
        if calls.hear():
            try:
                loop.call_soon_threadsafe(calls.settle)
            except RuntimeError:
                return  # closed meanwhile
