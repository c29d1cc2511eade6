"""Pins and unpins on a sandbox with the installed package, then exits while daemon threads make calls.

glibc ends those threads by unwinding them, which fails in a module linked with another unwinder.
"""

import asyncio
import threading
import time
from importlib.metadata import version

from feishu_feed_card import AsyncClient
from feishu_feed_card.sandbox import Sandbox

DAEMONS = 8


def main() -> None:
    """Makes the calls."""
    sandbox = Sandbox()
    with sandbox.client() as client:
        outcome = client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True, timeout=60)
    assert outcome.ok, outcome
    assert sandbox.pinned(sandbox.USER) == [sandbox.CHAT]
    outcome = asyncio.run(unpin(sandbox))
    assert outcome.ok, outcome
    assert sandbox.pinned(sandbox.USER) == []

    calls = exit_during_calls(sandbox)
    print("feishu-feed-card", version("feishu-feed-card"), "pinned and unpinned; daemon threads made", calls, "calls")


async def unpin(sandbox: Sandbox):
    async with AsyncClient("cli_example", "example-secret", base_url=sandbox.base_url) as client:
        return await client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], False, timeout=60)


def exit_during_calls(sandbox: Sandbox) -> int:
    client = sandbox.client(rate_limit=None)
    calls = []

    def work() -> None:
        while True:
            calls.append(client.set_bot_time_sensitive([sandbox.USER], True).ok)

    for _ in range(DAEMONS):
        threading.Thread(target=work, daemon=True).start()
    # An emulated processor needs some seconds.
    deadline = time.monotonic() + 60
    while len(calls) < DAEMONS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(calls) >= DAEMONS, calls
    return len(calls)


main()
