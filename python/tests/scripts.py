"""Scripts that run in a new interpreter, and are killed if they do not end in time."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

KILLED_AFTER = 30.0


@dataclasses.dataclass
class Ended:
    """How a script ended."""

    code: int
    out: str
    err: str
    seconds: float
    after_signal: float


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a script, and the processes that it forked where the system has process groups."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def run(source: str, *, interrupt_at: str | None = None, env: dict[str, str] | None = None) -> Ended:
    """Runs a script until it ends. Sends SIGINT after it has printed the line `interrupt_at`, if given."""
    started = time.perf_counter()
    # Python's warning about a fork in a program with threads, which some tests do on purpose. Python 3.15 is
    # the first version in which `-W error` turns this warning into an exception.
    forks = "ignore:This process (pid=:DeprecationWarning"
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "utf8",
            "-X",
            "faulthandler",
            "-W",
            "error",
            "-W",
            forks,
            "-c",
            textwrap.dedent(source),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        env={**os.environ, **(env or {})},
    )
    assert process.stdout is not None
    out, signalled = "", 0.0
    try:
        if interrupt_at is not None:
            for line in process.stdout:
                out += line
                if line.strip() == interrupt_at:
                    break
            time.sleep(0.2)
            signalled = time.perf_counter()
            process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=KILLED_AFTER)
    except subprocess.TimeoutExpired:
        kill(process)
        rest, err = process.communicate()
        raise AssertionError(f"not ended after {KILLED_AFTER} s\n{out}{rest}\n{err}") from None
    now = time.perf_counter()
    return Ended(process.returncode, out + rest, err, now - started, now - signalled)


def prints(source: str, expected: str) -> Ended:
    """Runs a script that must print this, nothing on stderr, and end with 0."""
    ended = run(source)
    assert (ended.code, ended.out.strip(), ended.err) == (0, expected, ""), ended
    return ended
