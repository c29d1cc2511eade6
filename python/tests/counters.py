"""Counters of what this process holds. For tests marked `needs.proc`."""

from __future__ import annotations

import gc
import os
from pathlib import Path


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
