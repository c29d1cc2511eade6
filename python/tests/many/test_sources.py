"""The iterable of requests: reading ahead, slow iterables, exceptions of an iterable and of closing it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import UserDict
from typing import TYPE_CHECKING, Any

import pytest

from feishu_feed_card import AsyncClient, Client, InvalidInputError, Progress, Report, Request
from many_players import MOST_IN_A_BATCH, PIN, RUNS, assert_adds_up
from waits import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from feishu_feed_card.sandbox import Sandbox


def test_an_exception_of_the_iterable_is_raised(player: Callable[..., Any], sandbox: Sandbox):
    class OwnError(Exception):
        pass

    def requests() -> Iterator[Request]:
        for _ in range(5):
            yield PIN
        eventually(lambda: sandbox.request_count() > 1)
        raise OwnError("no more")

    with pytest.raises(OwnError, match="no more"):
        player(requests())


def test_finished_items_come_before_the_exception_of_the_iterable(client: Client, sandbox: Sandbox):
    def requests() -> Iterator[Request]:
        yield from [PIN] * 5
        # The response to a request may still be on its way.
        eventually(lambda: many._bound.progress()[0] > 0)
        sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])
        yield {**PIN, "feed_card_id": "oc_slow"}
        eventually(lambda: sandbox.faults_left() == 1)
        raise ValueError("no more")

    many = client.set_time_sensitive_many(requests())
    items = []
    with pytest.raises(ValueError, match="no more"):
        for item in many:
            items.append(item)  # noqa: PERF402 -- it raises half-way
    assert items, "at least one had finished"
    assert all(item.error is None for item in items)
    assert next(many, None) is None
    report = many.report()
    assert report.taken == 6
    assert report.succeeded == len(items)
    assert_adds_up(report)
    assert many.report() is report


@RUNS
def test_finished_items_come_before_the_exception_of_an_async_iterable(
    runner: Any, async_client: AsyncClient
):
    async def requests() -> AsyncIterator[Request]:
        for _ in range(5):
            yield PIN
        await eventually_async(lambda: many._bound.progress()[0] == 5)
        raise ValueError("no more")

    async def main() -> None:
        nonlocal many
        many = async_client.set_time_sensitive_many(requests())
        items = []
        with pytest.raises(ValueError, match="no more"):
            async for item in many:
                items.append(item)  # noqa: PERF401 -- it raises at the end
        assert sorted(item.index for item in items) == [0, 1, 2, 3, 4]

    many: Any = None
    runner(main())


def test_an_exception_of_user_ids_is_raised(player: Callable[..., Any]):
    def users() -> Iterator[str]:
        raise OSError("the list is gone")
        yield

    with pytest.raises(OSError, match="the list is gone"):
        player([{**PIN, "user_ids": users()}])


@pytest.mark.parametrize("read", [0, 2])
def test_a_request_whose_user_ids_raise_is_accounted_for(client: Client, read: int):
    def users() -> Iterator[str]:
        yield from ("ou_1", "ou_2", "ou_1")[:read]
        raise OSError("the list is gone")

    request: Request = {**PIN, "user_ids": users()}
    many = client.set_time_sensitive_many([PIN, request, PIN])
    with pytest.raises(OSError, match="the list is gone"):
        list(many)
    report = many.report()
    assert report.taken == 2
    assert_adds_up(report)
    assert report.unfinished[-1].index == 1
    assert report.unfinished[-1].request is request
    assert report.unfinished[-1].not_attempted == ("ou_1", "ou_2")[:read]


def test_a_mapping_that_raises_is_accounted_for(client: Client):
    class Gone(UserDict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise LookupError("no more")

    many = client.set_time_sensitive_many([Gone(PIN)])  # type: ignore[list-item]
    with pytest.raises(LookupError, match="no more"):
        next(many)
    report = many.report()
    assert (report.taken, len(report.unfinished)) == (1, 1)


def test_reading_ahead_is_bounded(player: Callable[..., Any]):
    read = most = done = 0

    def requests() -> Iterator[Request]:
        nonlocal read, most
        for _ in range(1000):
            read += 1
            most = max(most, read - done)
            yield PIN

    def progress(progress: Progress) -> None:
        nonlocal done
        done = progress.done

    player(requests(), concurrency=10, progress=progress)
    assert 1 < most <= 10 + MOST_IN_A_BATCH


def test_a_paused_consumer_pauses_reading(client: Client, sandbox: Sandbox):
    read = 0

    def requests() -> Iterator[Request]:
        nonlocal read
        while True:
            read += 1
            yield PIN

    with client.set_time_sensitive_many(requests(), concurrency=10) as many:
        next(many)
        time.sleep(0.3)
        assert read <= 10 + MOST_IN_A_BATCH
        assert sandbox.request_count() <= 1 + read
    report = many.report()
    assert report.taken == read
    assert_adds_up(report)


def test_items_are_returned_while_the_iterable_is_slow(client: Client, sandbox: Sandbox):
    def requests() -> Iterator[Request]:
        for number in range(50):
            if number > 1:
                # As slow as the platform: the first result is there when this returns.
                eventually(lambda: sandbox.request_count() > 1 and sandbox.pinned(sandbox.USER))
                time.sleep(0.05)
            yield PIN
            read.append(number)

    read: list[int] = []
    with client.set_time_sensitive_many(requests()) as many:
        next(many)
        assert len(read) < 10


@RUNS
def test_items_are_returned_while_an_async_iterable_waits(runner: Any, async_client: AsyncClient):
    async def main() -> None:
        queue: asyncio.Queue[Request] = asyncio.Queue()

        async def requests() -> AsyncIterator[Request]:
            while True:
                yield await queue.get()

        async with async_client.set_time_sensitive_many(requests()) as many:
            for number in range(3):
                await queue.put(PIN)
                item = await asyncio.wait_for(many.__anext__(), 10)
                assert item.index == number
                assert item.error is None

    runner(main())


def test_a_file_is_not_closed(client: Client, tmp_path):
    path = tmp_path / "requests"
    path.write_text("a\nb\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        with client.set_time_sensitive_many(file) as many:  # type: ignore[arg-type]
            assert isinstance(next(many).error, InvalidInputError)
        assert not file.closed


async def closing_fails() -> AsyncIterator[Any]:
    """Endless requests."""
    try:
        while True:
            yield PIN
            await asyncio.sleep(0.01)
    finally:
        raise OSError("the cursor is gone")


def test_an_exception_of_closing_an_async_iterable_is_raised(async_client: AsyncClient):
    async def main() -> None:
        many = async_client.set_time_sensitive_many(closing_fails())
        await anext(many)
        with pytest.raises(OSError, match="the cursor is gone"):
            await many.aclose()
        await many.aclose()
        report = await many.report()
        assert report.taken >= 1
        assert_adds_up(report)

    asyncio.run(main())


def test_an_exception_of_closing_a_dropped_async_iterable_is_reported(async_client: AsyncClient):
    async def main() -> None:
        reported: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
        await anext(async_client.set_time_sensitive_many(closing_fails()))
        gc.collect()
        await eventually_async(lambda: gc.collect() is not None and reported)
        assert isinstance(reported[0], OSError)

    asyncio.run(main())


class Stopping(UserDict[str, Any]):
    """A mapping that raises an exception that ends iterators."""

    def __init__(self, exception: type[Exception]) -> None:
        super().__init__(PIN)
        self.exception = exception

    def __getitem__(self, key: str) -> Any:
        raise self.exception


@pytest.mark.parametrize("exception", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("where", ["progress", "requests"])
def test_a_stop_iteration_of_the_callers_code_is_raised(
    player: Callable[..., Any], exception: type[Exception], where: str
):
    def progress(_: Progress) -> None:
        raise exception

    with pytest.raises((RuntimeError, exception)) as caught:
        if where == "progress":
            player([PIN] * 3, progress=progress)
        else:
            player([PIN, Stopping(exception), PIN])
    assert exception in (type(caught.value), type(caught.value.__cause__))


@RUNS
def test_a_cancelled_error_of_an_async_iterable_is_raised(runner: Any, async_client: AsyncClient):
    async def requests() -> AsyncIterator[Request]:
        yield PIN
        await had_one.wait()
        task = asyncio.create_task(asyncio.sleep(3600))
        task.cancel()
        await task

    async def main() -> None:
        nonlocal had_one
        had_one = asyncio.Event()
        many = async_client.set_time_sensitive_many(requests())
        assert (await many.__anext__()).error is None
        had_one.set()
        with pytest.raises(asyncio.CancelledError):
            await many.__anext__()
        assert await many.report() == Report(1, 1, 0, not_read=None)

    had_one: asyncio.Event
    runner(main())
