"""What the tests have in common."""

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
    """Nothing of the machine's environment reaches a client."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("FEISHU_"):
            monkeypatch.delenv(name)


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    """How many threads this process has, those that Python does not know among them."""
    return len(os.listdir("/proc/self/task"))


def memory() -> int:
    """How many bytes of memory this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
