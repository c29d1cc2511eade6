"""Fixtures that several test modules use."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest

from records import LOGGER, Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell starts background jobs with SIGINT ignored, and scripts that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch):
    """Removes the proxies and the app of the machine's environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("FEISHU_"):
            monkeypatch.delenv(name)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """A handler for the package's records at DEBUG. No other handler gets them."""
    handler = Kept()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    yield handler
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.propagate = True
