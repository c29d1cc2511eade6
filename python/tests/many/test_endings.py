"""How many calls end: leaving the loop, cancelling, dropping, and closing the client."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import needs
from counters import threads
from feishu_feed_card import AsyncClient, Client, ClientClosedError, Report, Request
from many_players import PIN, RUNS, assert_adds_up, asynchronously, play
from waits import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from feishu_feed_card.sandbox import Sandbox


def test_leaving_the_loop_stops_requests_and_closes_the_generator(client: Client, sandbox: Sandbox):
    closed = []

    def requests() -> Iterator[Request]:
        try:
            while True:
                yield PIN
        finally:
            closed.append(True)

    generator = requests()
    with client.set_time_sensitive_many(generator, concurrency=20) as many:
        for item in many:
            sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])
            assert item.error is None
            break
    assert closed == [True], "although the generator is referenced elsewhere"
    assert list(many) == []
    report = many.report()
    assert_adds_up(report)
    assert report.succeeded == 1 + sum(item.error is None for item in report.unread)
    for stopped in report.unfinished:
        assert stopped.request is PIN
        assert len(stopped.unknown + stopped.not_attempted) == 1
    time.sleep(0.1)
    # Requests that were sent may still arrive, but no further request is sent.
    assert sandbox.request_count() <= 1 + report.taken


@RUNS
@pytest.mark.parametrize("is_async", [False, True], ids=["iterable", "async iterable"])
def test_leaving_the_loop_closes_the_source_on_an_event_loop(
    runner: Any, async_client: AsyncClient, sandbox: Sandbox, is_async: bool
):
    closed = []

    def requests() -> Iterator[Request]:
        try:
            while True:
                yield PIN
        finally:
            closed.append(True)

    async def async_requests() -> AsyncIterator[Request]:
        try:
            while True:
                yield PIN
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        source = async_requests() if is_async else requests()
        async with async_client.set_time_sensitive_many(source, concurrency=20) as many:
            async for item in many:
                assert item.error is None
                break
        assert closed == [True]
        assert [item async for item in many] == []
        report = await many.report()
        assert_adds_up(report)
        assert report.taken >= 1
        assert await many.report() is report
        assert len(asyncio.all_tasks()) == 1

    runner(main())


@RUNS
def test_cancelling_the_consumer_stops_requests(runner: Any, async_client: AsyncClient, sandbox: Sandbox):
    closed = []

    async def requests() -> AsyncIterator[Request]:
        try:
            yield PIN
            yield PIN
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    async def main() -> None:
        sandbox.faults([{"on": "call", "delay_before_ms": 400, "times": 2}])
        many = async_client.set_time_sensitive_many(requests())

        async def consume() -> None:
            async for _ in many:
                pass

        task = asyncio.create_task(consume())
        await eventually_async(lambda: sandbox.request_count() == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        report = await many.report()
        assert closed == [True]
        assert report.taken == 2
        assert [stopped.unknown for stopped in report.unfinished] == [(sandbox.USER,)] * 2
        await asyncio.sleep(0.8)

    runner(main())
    assert sandbox.pinned(sandbox.USER) == []


def test_dropping_many_stops_its_requests(client: Client, sandbox: Sandbox):
    many: Any = client.set_time_sensitive_many([PIN, {**PIN, "feed_card_id": "nowhere"}])
    sandbox.faults([{"on": "call", "delay_before_ms": 400}])
    assert next(many).index == 1
    eventually(lambda: sandbox.request_count() == 2)
    del many
    time.sleep(0.8)
    assert sandbox.pinned(sandbox.USER) == []


@RUNS
def test_dropping_many_stops_its_requests_on_an_event_loop(
    runner: Any, async_client: AsyncClient, sandbox: Sandbox
):
    closed = []

    async def requests() -> AsyncIterator[Request]:
        try:
            yield PIN
            yield {**PIN, "feed_card_id": "nowhere"}
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    async def main() -> None:
        many: Any = async_client.set_time_sensitive_many(requests())
        sandbox.faults([{"on": "call", "delay_before_ms": 400}])
        assert (await many.__anext__()).index == 1
        await eventually_async(lambda: sandbox.request_count() == 2)
        gone = weakref.ref(many)
        del many
        assert gone() is None
        await eventually_async(lambda: closed)
        await asyncio.sleep(0.8)
        assert len(asyncio.all_tasks()) == 1

    runner(main())
    assert sandbox.pinned(sandbox.USER) == []


def test_many_in_a_reference_cycle_is_collected(client: Client):
    many: Any = client.set_time_sensitive_many([PIN] * 300, concurrency=5)
    next(many)
    many.itself = many
    gone = weakref.ref(many)
    del many
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("is_finished", [False, True], ids=["running", "finished"])
@pytest.mark.parametrize("callback", ["progress", "on_event"])
def test_a_cycle_through_a_callback_is_collected(sandbox: Sandbox, callback: str, is_finished: bool):
    class Bot:
        def __init__(self) -> None:
            self.client = sandbox.client(rate_limit=None)
            options: Any = {callback: self.listen}
            self.many = self.client.set_time_sensitive_many([PIN] * 20, concurrency=5, **options)

        def listen(self, _: object) -> None: ...

    bot = Bot()
    next(bot.many)
    if is_finished:
        list(bot.many)
    kept = [weakref.ref(bot), weakref.ref(bot.many), weakref.ref(bot.client)]
    del bot
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3


def test_dropping_many_with_a_listener_does_not_block_the_runtime(sandbox: Sandbox):
    """Another loop's requests continue while this thread holds the GIL."""
    many = sandbox.client(rate_limit=None).set_time_sensitive_many([PIN] * 50 + [{}], on_event=print)
    sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])
    next(many)  # {}, which is no request
    eventually(lambda: sandbox.request_count() > 50)  # the token's, and the calls'
    other = sandbox.client(rate_limit=(20, 1000)).set_time_sensitive_many(PIN for _ in range(60))
    sandbox.clear_faults()
    next(other)
    time.sleep(0.3)  # the first second's requests are through
    sandbox.clear_record()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        del many
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass
    finally:
        sys.setswitchinterval(interval)
    received = sandbox.request_count()
    other.close()
    assert received > 10


def test_closing_the_client_ends_the_loop(client: Client, sandbox: Sandbox):
    unbegun = client.set_time_sensitive_many([PIN])
    many = client.set_time_sensitive_many((PIN for _ in range(10_000)), concurrency=5)
    next(many)
    client.close()
    items = []
    with pytest.raises(ClientClosedError, match="closed"):
        for item in many:
            items.append(item)  # noqa: PERF402 -- it raises at the end
    assert all(item.error is None for item in items), "requests in progress end normally"
    assert many.report().unfinished == ()
    assert many.report().not_read is None
    with pytest.raises(ClientClosedError, match="closed"):
        next(unbegun)
    assert unbegun.report() == Report(0, 0, 0, not_read=1)
    with pytest.raises(ClientClosedError, match="closed"):
        list(client.set_time_sensitive_many([]))


def test_closing_the_client_stops_requests_after_its_timeout(client: Client, sandbox: Sandbox):
    sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])
    many = client.set_time_sensitive_many((PIN for _ in range(10_000)), concurrency=5)
    closing = threading.Timer(0.3, client.close, (0.2,))
    closing.start()
    items = []
    with pytest.raises(ClientClosedError, match="closed"):
        for item in many:
            items.append(item)  # noqa: PERF402 -- it raises at the end
    closing.join()
    assert [item.index for item in sorted(items, key=lambda item: item.index)] == [0, 1, 2, 3, 4]
    for item in items:
        assert isinstance(item.error, ClientClosedError)
        assert item.error.unknown == (sandbox.USER,)
    report = many.report()
    assert (report.taken, report.failed, report.unfinished) == (5, 5, ())


@pytest.mark.parametrize("is_async", [False, True], ids=["iterable", "async iterable"])
def test_closing_the_async_client_ends_the_loop(async_client: AsyncClient, is_async: bool):
    async def main() -> None:
        requests = (PIN for _ in range(10_000))
        source = asynchronously(requests) if is_async else requests
        many = async_client.set_time_sensitive_many(source, concurrency=5)
        await many.__anext__()
        await async_client.aclose()
        with pytest.raises(ClientClosedError, match="closed"):
            async for item in many:
                assert item.error is None
        assert (await many.report()).unfinished == ()

    asyncio.run(main())


@needs.proc
def test_leaving_a_loop_leaves_no_thread(client: Client):
    play(client, [PIN] * 50)
    before = threads()
    for _ in range(30):
        with client.set_time_sensitive_many(PIN for _ in range(1000)) as many:
            next(many)
    assert threads() <= before + 1


def test_a_failure_that_is_never_raised_does_not_keep_the_client(sandbox: Sandbox):
    async def failing(may_fail: asyncio.Event, failed: asyncio.Event) -> AsyncIterator[Any]:
        yield PIN
        await may_fail.wait()
        failed.set()
        raise ValueError("a bug of the source's")

    async def leave() -> weakref.ref[AsyncClient]:
        client = sandbox.async_client()
        may_fail, failed = asyncio.Event(), asyncio.Event()
        many = client.set_time_sensitive_many(failing(may_fail, failed))
        await anext(many)
        may_fail.set()
        await failed.wait()
        await asyncio.sleep(0)
        await many.aclose()
        await client.aclose()
        return weakref.ref(client)

    client = asyncio.run(leave())
    gc.collect()
    assert client() is None


def test_a_loop_over_results_is_closed_quietly_where_no_event_loop_runs(sandbox: Sandbox):
    pin: Any = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}

    async def source() -> AsyncIterator[Any]:
        yield pin
        await asyncio.sleep(3600)

    async def consume(many: Any) -> None:
        async for _ in many:
            pass

    client = sandbox.async_client()
    event_loop = asyncio.new_event_loop()
    task = event_loop.create_task(consume(client.set_time_sensitive_many(source())))
    event_loop.run_until_complete(asyncio.sleep(0.3))
    # What happens to a pending task that is destroyed.
    task.get_coro().close()
    task.cancel()
    event_loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(event_loop), return_exceptions=True))
    event_loop.close()
