"""Interrupts, the exit of the interpreter, and forks during many calls."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import needs
from feishu_feed_card import AsyncClient, Client, RejectedError, Report, Request
from many_players import PIN, assert_adds_up
from scripts import run
from waits import eventually

if TYPE_CHECKING:
    from feishu_feed_card.sandbox import Sandbox

SCRIPT = """
import asyncio, gc, os, signal, sys, threading, time
from feishu_feed_card.sandbox import Sandbox

sandbox = Sandbox({"switches": {"per_second": None, "per_minute": None}})
PIN = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}

def in_flight(count):
    deadline = time.monotonic() + 10
    while sandbox.request_count() < count + 1 and time.monotonic() < deadline:
        time.sleep(0.005)
"""


@needs.alarm
def test_ctrl_c_ends_the_loop():
    ended = run(
        SCRIPT
        + """
sandbox.faults([{"on": "call", "delay_before_ms": 20000, "times": 0}])
waits = []
for _ in range(5):
    many = sandbox.client().set_time_sensitive_many(PIN for _ in range(5))
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.15)
    started = time.monotonic()
    try:
        for item in many:
            pass
    except KeyboardInterrupt:
        waits.append(time.monotonic() - started - 0.15)
    report = many.report()
    assert report.taken == 5 == len(report.unfinished), report
    assert next(many, None) is None
print(len(waits), min(waits) < 0.1, waits)
"""
    )
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.startswith("5 True"), ended.out


UNKNOWN_CHAT: Request = {**PIN, "feed_card_id": "oc_nowhere"}


def interrupt_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates Ctrl-C while the fifth error is made."""
    original, made = RejectedError.__init__, []

    def interrupted(self: RejectedError, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        if len(made) == 5:
            raise KeyboardInterrupt
        original(self, *args, **kwargs)

    monkeypatch.setattr(RejectedError, "__init__", interrupted)


def interrupt_return(name: str) -> None:
    """Simulates Ctrl-C when a native function returns."""

    def profile(_frame: object, event: str, function: Any) -> None:
        if event == "c_return" and function.__name__ == name:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(profile)


def assert_nothing_is_lost(report: Report, handed_out: list[int]) -> None:
    """Checks that each request is returned, unread or unfinished, and only one of these."""
    assert_adds_up(report)
    unread = [item.index for item in report.unread]
    unfinished = [left.index for left in report.unfinished]
    assert sorted(handed_out + unread + unfinished) == list(range(report.taken))
    assert all(item.request is UNKNOWN_CHAT and item.error is not None for item in report.unread)


@pytest.mark.parametrize("moment", ["conversion", "return"])
def test_an_interrupt_loses_no_results_and_stops_the_calls(
    client: Client, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, moment: str
):
    many = client.set_time_sensitive_many(UNKNOWN_CHAT for _ in range(100_000))
    handed_out = [next(many).index]
    if moment == "conversion":
        interrupt_conversion(monkeypatch)
    else:
        interrupt_return("next_batch")
    with pytest.raises(KeyboardInterrupt):
        handed_out.extend(item.index for item in many)
    assert not many._bound.is_reading()
    assert list(many) == []
    assert_nothing_is_lost(many.report(), handed_out)


@pytest.mark.parametrize("moment", ["conversion", "return"])
def test_an_interrupted_task_loses_no_results(
    async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch, moment: str
):
    async def main() -> None:
        many = async_client.set_time_sensitive_many(UNKNOWN_CHAT for _ in range(100_000))
        handed_out = [(await anext(many)).index]
        if moment == "conversion":
            interrupt_conversion(monkeypatch)
        else:
            interrupt_return("take")
        with pytest.raises(KeyboardInterrupt):
            async for item in many:
                handed_out.append(item.index)  # noqa: PERF401 -- what comes before the interrupt counts
        assert not many._bound.is_reading()
        assert_nothing_is_lost(await many.report(), handed_out)

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["conversion", "return"])
def test_a_report_that_was_interrupted_can_be_asked_for_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, moment: str
):
    many = client.set_time_sensitive_many([UNKNOWN_CHAT] * 300, concurrency=300)
    handed_out = [next(many).index]
    eventually(lambda: many._bound.progress()[0] == 300)
    many.close()
    if moment == "conversion":
        interrupt_conversion(monkeypatch)
    else:
        interrupt_return("report")
    with pytest.raises(KeyboardInterrupt):
        many.report()
    report = many.report()
    assert (report.taken, report.failed, len(report.unread)) == (300, 300, 299)
    assert_nothing_is_lost(report, handed_out)
    assert many.report() is report


def test_exit_with_requests_in_flight():
    ended = run(
        SCRIPT
        + """
sandbox.faults([{"on": "call", "delay_before_ms": 20000, "times": 0}])
many = sandbox.client().set_time_sensitive_many(PIN for _ in range(5))
threading.Thread(target=lambda: next(many), daemon=True).start()
async_many = sandbox.async_client().set_time_sensitive_many(PIN for _ in range(5))

async def main():
    asyncio.create_task(async_many.__anext__())
    while sandbox.request_count() < 8:
        await asyncio.sleep(0.005)

asyncio.run(main())
in_flight(5)
print("leaving")
"""
    )
    assert (ended.code, ended.out, ended.err) == (0, "leaving\n", ""), ended


def test_exit_with_requests_in_flight_and_a_token_provider():
    ended = run(
        SCRIPT
        + """
from feishu_feed_card import Client
import json, urllib.request

def provider():
    app = json.dumps({"app_id": sandbox.APP_ID, "app_secret": sandbox.APP_SECRET}).encode()
    url = sandbox.base_url + "/open-apis/auth/v3/tenant_access_token/internal"
    with urllib.request.urlopen(urllib.request.Request(url, app), timeout=10) as answer:
        return json.load(answer)["tenant_access_token"]

client = sandbox.client(token_provider=provider, rate_limit=None)
finished = client.set_time_sensitive_many([PIN] * 5)
print(len(list(finished)))
many = client.set_time_sensitive_many(PIN for _ in range(300))
print(next(many).error, "token provider" in str(threading.enumerate()))
"""
    )
    assert (ended.code, ended.out, ended.err) == (0, "5\nNone True\n", ""), ended


@needs.fork
def test_a_forked_child_cannot_continue_its_parents_loop():
    ended = run(
        SCRIPT
        + """
client = sandbox.client(rate_limit=None)
many = client.set_time_sensitive_many((PIN for _ in range(300)), concurrency=20)
unbegun = client.set_time_sensitive_many(PIN for _ in range(3))
next(many)
sys.stdout.flush()
child = os.fork()
if child == 0:
    signal.alarm(20)
    try:
        for work in (lambda: list(many), many.report, lambda: many.__exit__(None, None, None)):
            try:
                work()
                print("no error")
            except RuntimeError as error:
                print(str(error)[-40:])
        print(len(list(unbegun)), client.set_bot_time_sensitive([sandbox.USER], True).ok)
        del many, work
        gc.collect()
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        print("child:", repr(error), flush=True)
        os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(len(list(many)), many.report().succeeded)
"""
    )
    refused = "the process that started them; this process was forked from it"[-40:]
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.splitlines() == [refused] * 3 + ["3 True", "0", "299 300"], ended


@needs.fork
def test_a_forked_child_returns_no_items_of_its_parent():
    ended = run(
        SCRIPT
        + """
many = sandbox.client(rate_limit=None).set_time_sensitive_many((PIN for _ in range(300)), concurrency=200)
async_many = sandbox.async_client(rate_limit=None).set_time_sensitive_many([PIN] * 300, concurrency=200)

async def fill():
    while not async_many._batch:
        await async_many.__anext__()

asyncio.run(fill())
while not many._batch:
    next(many)
sys.stdout.flush()
child = os.fork()
if child == 0:
    signal.alarm(20)
    for work in (lambda: next(many), lambda: asyncio.run(async_many.__anext__())):
        try:
            print("handed out", work().index, flush=True)
        except RuntimeError as error:
            print(str(error)[-40:], flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(next(many).error)
"""
    )
    refused = "the process that started them; this process was forked from it"[-40:]
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.splitlines() == [refused] * 2 + ["0", "None"], ended
