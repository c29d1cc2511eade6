"""Descriptors, threads and memory do not grow over many calls."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import time

import pytest

import needs
from counters import descriptors, memory, threads
from feishu_feed_card import InvalidInputError, RejectedError
from feishu_feed_card.sandbox import Sandbox

pytestmark = needs.proc

ROUNDS = 10
# `cargo matrix` tests an optimised build, and makes 100,000.
CALLS = int(os.environ.get("LEAK_TEST_CALLS", "10000")) // ROUNDS


@pytest.fixture(autouse=True)
def no_logging():
    """Disables logging: pytest keeps every record, also of a logger that does not propagate."""
    logger = logging.getLogger("feishu_feed_card")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def sandbox():
    """A sandbox that keeps no records, because their memory would grow."""
    with Sandbox(
        {"switches": {"per_second": None, "per_minute": None, "keep_requests": 0, "keep_arrivals": 0}}
    ) as sandbox:
        # The first call starts the runtime, whose descriptors stay open.
        with sandbox.client() as client:
            client.set_bot_time_sensitive([sandbox.USER], True)
        yield sandbox


def settle() -> tuple[int, int, int]:
    """Descriptors, threads and memory of this process, after a short wait."""
    gc.collect()
    time.sleep(0.05)
    return descriptors(), threads(), memory()


def assert_descriptors_return_to(baseline: int) -> None:
    """Waits up to 10 s: the sandbox, in this process, closes its end of a connection a little later."""
    end = time.monotonic() + 10
    while descriptors() > baseline and time.monotonic() < end:
        time.sleep(0.01)
    assert descriptors() <= baseline, f"{descriptors() - baseline} descriptors are left"


def assert_flat(history: list[tuple[int, int, int]], pooled: int = 1) -> None:
    """Compares the last round with the third, after caches and pools are filled. A pool may keep `pooled`
    connections, each with two ends."""
    before, after = history[2], history[-1]
    assert after[0] <= before[0] + 2 * pooled, f"descriptors grow: {history}"
    assert after[1] <= before[1] + 1, f"threads grow: {history}"
    # 8,000 calls that lose 64 bytes each lose half a MiB.
    assert after[2] - before[2] < 2 * 1024 * 1024, f"memory grows: {history}"


def test_blocking_calls_do_not_leak(sandbox: Sandbox):
    history = []
    with sandbox.client(rate_limit=None) as client:
        for _ in range(ROUNDS):
            for number in range(CALLS):
                client.set_time_sensitive(sandbox.CHAT, [sandbox.USER, sandbox.OUTSIDER], number % 2 == 0)
            history.append(settle())
    assert_flat(history)


def test_async_calls_do_not_leak(sandbox: Sandbox):
    history = []
    baseline = descriptors()

    async def work(client, number: int):
        for turn in range(CALLS // 50):
            if turn % 5 == 0:
                with pytest.raises(RejectedError):
                    await client.set_time_sensitive(f"oc_{number}", [sandbox.USER], True)
                with pytest.raises(InvalidInputError):
                    await client.set_time_sensitive("nowhere", [sandbox.USER], True)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(client.set_bot_time_sensitive([sandbox.USER], True), 0.000_01)
            else:
                await client.set_bot_time_sensitive([sandbox.USER], True)

    async def main():
        async with sandbox.async_client(rate_limit=None, late_arrival=0) as client:
            for _ in range(ROUNDS):
                await asyncio.gather(*(work(client, number) for number in range(50)))
                history.append(settle())

    asyncio.run(main())
    # How many connections the pool keeps depends on which calls were cancelled while they used one.
    assert_flat(history, pooled=50)
    assert_descriptors_return_to(baseline)


def test_new_clients_and_loops_do_not_leak(sandbox: Sandbox):
    history = []

    async def main():
        async with sandbox.async_client() as client:
            assert (await client.set_bot_time_sensitive([sandbox.USER], True)).ok

    for _ in range(ROUNDS):
        for _ in range(20):
            asyncio.run(main())
            with sandbox.client() as client:
                assert client.set_bot_time_sensitive([sandbox.USER], True).ok
        history.append(settle())
    assert_flat(history)


def test_new_sandboxes_do_not_leak():
    history = []
    for _ in range(ROUNDS):
        for _ in range(5):
            with Sandbox() as sandbox, sandbox.client() as client:
                assert client.set_bot_time_sensitive([sandbox.USER], True).ok
        history.append(settle())
    assert_flat(history)
