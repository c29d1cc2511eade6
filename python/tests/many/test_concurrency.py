"""Several loops, threads, tasks and event loops at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from feishu_feed_card import AsyncClient, Client, Item, Report, Request
from many_players import MOST_IN_A_BATCH, PIN, RUNS, asynchronously
from waits import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from feishu_feed_card.sandbox import Sandbox


@RUNS
def test_other_tasks_run_during_the_loop(runner: Any, async_client: AsyncClient):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(tick())
        async for _ in async_client.set_time_sensitive_many(PIN for _ in range(1000)):
            pass
        task.cancel()

    runner(main())
    assert ticks >= 1000 / MOST_IN_A_BATCH


@RUNS
def test_the_event_loop_runs_while_an_iterable_is_slow(
    runner: Any, async_client: AsyncClient, sandbox: Sandbox
):
    turns = 0
    seen = []

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def requests() -> Iterator[Request]:
        for _ in range(20):
            seen.append(turns)
            time.sleep(0.01)
            yield PIN

    async def main() -> None:
        # All results come after the iterable was read.
        sandbox.faults([{"on": "any", "delay_before_ms": 1000}])
        task = asyncio.create_task(tick())
        async with async_client.set_time_sensitive_many(requests()) as many:
            assert len([item async for item in many]) == 20
        task.cancel()

    runner(main())
    assert len(set(seen)) == 20, seen


def test_two_loops_and_single_calls_at_once(client: Client, sandbox: Sandbox):
    one = client.set_time_sensitive_many([PIN] * 200, concurrency=5)
    two = client.set_time_sensitive_many((PIN for _ in range(200)), concurrency=7)
    ends = []
    for item, other in zip(one, two, strict=True):
        ends += [item.error, other.error]
        if item.index % 50 == 0:
            assert client.set_bot_time_sensitive([sandbox.USER], True).ok
    assert ends == [None] * 400
    assert one.report() == two.report() == Report(200, 200, 0)


@RUNS
def test_two_loops_and_single_calls_at_once_on_an_event_loop(
    runner: Any, async_client: AsyncClient, sandbox: Sandbox
):
    async def consume(requests: Any) -> int:
        many = async_client.set_time_sensitive_many(requests, concurrency=5)
        return len([item async for item in many if item.error is None])

    async def main() -> None:
        results = await asyncio.gather(
            consume([PIN] * 200),
            consume(asynchronously([PIN] * 200)),
            *(async_client.set_bot_time_sensitive([sandbox.USER], True) for _ in range(20)),
        )
        assert results[:2] == [200, 200]
        assert all(outcome.ok for outcome in results[2:])

    runner(main())


@pytest.mark.parametrize("is_async", [False, True], ids=["iterable", "async iterable"])
def test_iterating_without_an_event_loop_raises(async_client: AsyncClient, is_async: bool):
    many = async_client.set_time_sensitive_many(asynchronously([PIN]) if is_async else [PIN])
    with pytest.raises(RuntimeError, match="With trio"):
        many.__anext__().send(None)


@RUNS
def test_an_async_iterable_cannot_move_to_another_event_loop(runner: Any, async_client: AsyncClient):
    async def requests() -> AsyncIterator[Request]:
        yield PIN
        await asyncio.sleep(3600)

    async def begin() -> None:
        assert (await many.__anext__()).error is None

    async def go_on() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await many.__anext__()
        with pytest.raises(StopAsyncIteration):
            await many.__anext__()
        assert await many.report() == Report(1, 1, 0, not_read=None)

    many = async_client.set_time_sensitive_many(requests())
    runner(begin())
    runner(go_on())
    from_a_list = async_client.set_time_sensitive_many([PIN] * 2, concurrency=1)

    async def one() -> Item:
        return await from_a_list.__anext__()

    assert [runner(one()).index for _ in range(2)] == [0, 1], "a list can be read on any event loop"


def test_a_second_reader_is_refused(client: Client, async_client: AsyncClient, sandbox: Sandbox):
    sandbox.faults([{"on": "call", "delay_before_ms": 500, "times": 2}])
    many = client.set_time_sensitive_many([PIN])
    thread = threading.Thread(target=lambda: list(many))
    thread.start()
    eventually(lambda: sandbox.request_count() == 2)
    with pytest.raises(RuntimeError, match="another thread"):
        next(many)
    thread.join()

    async def main() -> None:
        many = async_client.set_time_sensitive_many([PIN])
        task = asyncio.create_task(many.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await many.__anext__()
        assert (await task).error is None

    asyncio.run(main())


def test_a_second_thread_does_not_end_the_loop_of_the_first(sandbox: Sandbox):
    sandbox.faults([{"on": "call", "delay_after_ms": 1500}])
    with sandbox.client() as client:
        many = client.set_time_sensitive_many([PIN] * 20, concurrency=1)
        handed_out: list[Item] = []
        first = threading.Thread(target=lambda: handed_out.extend(many))
        first.start()
        eventually(lambda: many._is_waiting)
        with pytest.raises(RuntimeError, match="another thread is already waiting"):
            next(many)
        first.join(10)
        assert [item.index for item in handed_out] == list(range(20))
