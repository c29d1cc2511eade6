"""`total_timeout`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from feishu_feed_card import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InvalidInputError,
    Item,
    Progress,
    Report,
    Request,
)
from feishu_feed_card.sandbox import Sandbox
from many_players import PIN, RUNS, assert_adds_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@RUNS
def test_total_timeout_ends_a_loop_over_a_generator_that_never_yields(runner: Any, async_client: AsyncClient):
    closed = []

    async def requests() -> AsyncIterator[Request]:
        try:
            yield PIN
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    async def main() -> None:
        many = async_client.set_time_sensitive_many(requests(), total_timeout=0.3)
        assert (await many.__anext__()).error is None
        with pytest.raises(DeadlineExceededError, match="the number of unread requests is unknown"):
            await many.__anext__()
        with pytest.raises(StopAsyncIteration):
            await many.__anext__()
        assert await many.report() == Report(1, 1, 0, not_read=None)
        assert closed == [True]

    runner(asyncio.wait_for(main(), 20))


def test_total_timeout_bounds_all_requests(player: Callable[..., Any], sandbox: Sandbox):
    sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])

    def requests() -> Iterator[Request]:
        while True:
            yield PIN

    began = time.monotonic()
    ends: list[DeadlineExceededError] = []
    items, report = player(requests(), ends=ends, concurrency=5, total_timeout=0.3)
    assert time.monotonic() - began < 10
    assert "the number of unread requests is unknown" in str(ends[0])
    assert report.not_read is None
    assert 1 <= len(items) <= 5
    assert all(isinstance(item.error, DeadlineExceededError) for item in items)
    assert (report.succeeded, report.failed) == (0, len(items))
    assert_adds_up(report)


def test_a_request_read_as_the_total_timeout_passes_has_an_item(player: Callable[..., Any]):
    def requests() -> Iterator[Any]:
        yield PIN
        time.sleep(0.5)
        yield {**PIN, "user_ids": [Sandbox.USER, Sandbox.USER]}
        yield PIN

    reported: list[Progress] = []
    ends: list[DeadlineExceededError] = []
    items, report = player(requests(), ends=ends, total_timeout=0.2, progress=reported.append)
    assert [(item.index, item.error is None) for item in items] == [(0, True), (1, False)]
    error = items[1].error
    assert isinstance(error, DeadlineExceededError)
    assert "total_timeout" in str(error)
    assert error.station == "quota"
    assert error.not_attempted == (Sandbox.USER,)
    assert report == Report(2, 1, 1, failures=[items[1]], not_read=None)
    assert "from index 2 on" in str(ends[0].hint)
    assert (reported[-1].done, reported[-1].failed) == (2, 1)


def test_an_invalid_request_read_after_the_total_timeout_has_an_item(player: Callable[..., Any]):
    def requests() -> Iterator[Any]:
        yield PIN
        time.sleep(0.5)
        yield 7

    ends: list[DeadlineExceededError] = []
    items, report = player(requests(), ends=ends, total_timeout=0.2)
    assert len(ends) == 1
    assert isinstance(items[1].error, InvalidInputError)
    assert report == Report(2, 1, 1, failures=[items[1]], not_read=None)


def test_each_request_pushed_after_the_total_timeout_has_its_own_index(sandbox: Sandbox):
    async def main() -> None:
        async def source() -> AsyncIterator[Any]:
            yield pin(0)
            await asyncio.sleep(3600)

        async with sandbox.async_client(rate_limit=None) as client:
            many = client.set_time_sensitive_many(source(), total_timeout=0.3)
            assert (await anext_of(many)).index == 0
            await asyncio.sleep(0.6)
            late = []
            for number in (1, 2):
                many._bound.push(pin(number))
                batch: list[Item] = []
                many._bound.take(batch)
                late += batch
            assert [(item.index, item.request["user_ids"]) for item in late] == [(1, ["ou_1"]), (2, ["ou_2"])]

    def pin(number: int) -> Any:
        return {"feed_card_id": sandbox.CHAT, "user_ids": [f"ou_{number}"], "time_sensitive": True}

    async def anext_of(many: Any) -> Any:
        return await many.__anext__()

    asyncio.run(main())


def test_the_error_after_the_last_item_is_raised_once_and_only_if_requests_were_not_read(
    client: Client, sandbox: Sandbox
):
    sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])
    many = client.set_time_sensitive_many([PIN] * 3000, concurrency=2, total_timeout=0.3)
    with pytest.raises(DeadlineExceededError, match="2,998 of 3,000 requests were not read") as caught:
        for item in many:
            assert isinstance(item.error, DeadlineExceededError)
    assert caught.value.retryable
    assert "from index 2 on" in str(caught.value.hint)
    assert next(many, None) is None
    assert many.report().not_read == 2998
    # The end of the list was not reached, because no slot was free; but its length is known.
    items = list(client.set_time_sensitive_many([PIN] * 2, concurrency=2, total_timeout=0.3))
    assert len(items) == 2
