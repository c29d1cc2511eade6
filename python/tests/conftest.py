"""Fixtures and counters that several test modules use."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

# A shell starts background jobs with SIGINT ignored, and scripts that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch):
    """Removes the proxies and the app of the machine's environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("FEISHU_"):
            monkeypatch.delenv(name)


def descriptors() -> int:
    """Open file descriptors of this process. For tests marked `needs.proc`."""
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    """Threads of this process, including those of the native module. For tests marked `needs.proc`."""
    return len(os.listdir("/proc/self/task"))


def memory() -> int:
    """Resident memory of this process, in bytes. For tests marked `needs.proc`."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
