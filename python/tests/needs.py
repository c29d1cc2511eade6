"""Marks for tests that need what not every platform has. Each says why it skips a test."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which Windows does not have")
alarm = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="needs SIGALRM and setitimer, which Windows does not have"
)
sigint = pytest.mark.skipif(
    sys.platform == "win32", reason="needs SIGINT sent to one process, which Windows cannot do"
)
limits = pytest.mark.skipif(
    find_spec("resource") is None, reason="needs setrlimit, which Windows does not have"
)
proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs /proc of Linux to count descriptors and threads"
)
uvloop = pytest.mark.skipif(find_spec("uvloop") is None, reason="needs uvloop, which Windows does not have")
