"""Calls while the process may open no file descriptor or start no thread, as at a container's limits."""

from __future__ import annotations

import pytest

import needs
from scripts import run

pytestmark = needs.limits

SETUP = """
import asyncio, os, resource, sys, threading
from feishu_feed_card import AsyncClient, Client, ConnectionFailedError
from feishu_feed_card.sandbox import Sandbox
import feishu_feed_card._many, feishu_feed_card._provider

sandbox = Sandbox({"switches": {"per_second": None, "per_minute": None}})
USERS = ["ou_b", "ou_a", "ou_b"]
PIN = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}

class Limit:
    def __init__(self, what):
        self.what = what
        self.before, self.hard = resource.getrlimit(what)

    def __exit__(self, *_):
        resource.setrlimit(self.what, (self.before, self.hard))

class NoDescriptor(Limit):
    def __init__(self):
        super().__init__(resource.RLIMIT_NOFILE)

    def __enter__(self):
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(self.what, (lowest, self.hard))

class NoThread(Limit):
    def __init__(self):
        super().__init__(resource.RLIMIT_NPROC)

    def __enter__(self):
        if os.getuid() == 0:
            os.setuid(65534)  # root has no such limit
        resource.setrlimit(self.what, (1, self.hard))
        try:
            threading.Thread(target=int).start()
        except RuntimeError:
            return
        print("this system does not enforce RLIMIT_NPROC")
        sys.exit()

def check(error, not_attempted=("ou_b", "ou_a")):
    assert error.kind == "CONNECTION", error
    assert error.retryable and error.reason is None and error.attempts == 0, repr(error)
    assert error.not_attempted == not_attempted, error.not_attempted
    assert "limits on file descriptors and threads" in error.hint, error.hint

def raises(call, **expected):
    try:
        call()
    except ConnectionFailedError as error:
        check(error, **expected)
    else:
        raise AssertionError("no error")

async def raises_async(call, **expected):
    try:
        await call()
    except ConnectionFailedError as error:
        check(error, **expected)
    else:
        raise AssertionError("no error")
"""

LIMITS = pytest.mark.parametrize("limit", ["NoDescriptor", "NoThread"])


def assert_ok(body: str) -> None:
    """Runs a script that must print "ok". Skips the test if the system does not enforce the limit."""
    ended = run(SETUP + body)
    if "does not enforce" in ended.out:
        pytest.skip(ended.out.strip())
    assert (ended.code, ended.out.strip(), ended.err) == (0, "ok", ""), ended


@LIMITS
def test_the_first_call_fails_and_the_next_one_works(limit: str):
    assert_ok(f"""
client = sandbox.client()
with {limit}():
    for _ in range(2):
        raises(lambda: client.set_bot_time_sensitive(USERS, True))
        raises(lambda: client.set_time_sensitive(sandbox.CHAT, USERS, True))
assert sandbox.request_count() == 0
assert client.set_bot_time_sensitive([sandbox.USER], True).ok
print("ok")
""")


@LIMITS
def test_the_first_awaited_call_fails_and_the_next_one_works(limit: str):
    assert_ok(f"""
async def main():
    client = sandbox.async_client()
    with {limit}():
        for _ in range(2):
            await raises_async(lambda: client.set_bot_time_sensitive(USERS, True))
    assert sandbox.request_count() == 0
    assert (await client.set_bot_time_sensitive([sandbox.USER], True)).ok

asyncio.run(main())
print("ok")
""")


def test_an_awaited_call_without_a_thread_for_its_loop_fails_and_the_next_one_works():
    # The first call has started the runtime's thread, but not the one that wakes event loops.
    assert_ok("""
with sandbox.client() as client:
    assert client.set_bot_time_sensitive([sandbox.USER], True).ok

async def main():
    client = sandbox.async_client()
    with NoThread():
        await raises_async(lambda: client.set_bot_time_sensitive(USERS, True))
    assert (await client.set_bot_time_sensitive([sandbox.USER], True)).ok

asyncio.run(main())
print("ok")
""")


def test_an_awaited_call_on_a_new_loop_needs_no_descriptor():
    assert_ok("""
client = sandbox.async_client()

async def pin():
    return await client.set_bot_time_sensitive([sandbox.USER], True)

assert asyncio.run(pin()).ok
loop = asyncio.new_event_loop()
with NoDescriptor():
    assert loop.run_until_complete(pin()).ok
loop.close()
print("ok")
""")
