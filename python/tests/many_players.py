"""Requests, and functions that send them with `set_time_sensitive_many` and check the report."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from event_loops import RUNNERS
from feishu_feed_card import AsyncClient, Client, DeadlineExceededError, Item, Report, Request
from feishu_feed_card.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

PIN: Request = {"feed_card_id": Sandbox.CHAT, "user_ids": [Sandbox.USER], "time_sensitive": True}
MOST_IN_A_BATCH = 64


def assert_adds_up(report: Report) -> None:
    """Checks that the report accounts for each request once."""
    assert report.taken == report.succeeded + report.failed + len(report.unfinished), report


RUNS = pytest.mark.parametrize("runner", RUNNERS)


@contextlib.contextmanager
def until_cut(ends: list[DeadlineExceededError] | None) -> Iterator[None]:
    """Appends the error after the last item to `ends`, if that is a list."""
    try:
        yield
    except DeadlineExceededError as error:
        if ends is None:
            raise
        ends.append(error)


def play(
    client: Client, requests: Iterable[Any], ends: list[DeadlineExceededError] | None = None, **options: Any
) -> tuple[list[Item], Report]:
    """Reads all items with `Client`."""
    items: list[Item] = []
    with client.set_time_sensitive_many(requests, **options) as many, until_cut(ends):
        items.extend(many)
    return items, many.report()


def play_async(
    client: AsyncClient, requests: Any, ends: list[DeadlineExceededError] | None = None, **options: Any
) -> tuple[list[Item], Report]:
    """Reads all items with `AsyncClient`."""

    async def main() -> tuple[list[Item], Report]:
        items: list[Item] = []
        async with client.set_time_sensitive_many(requests, **options) as many:
            with until_cut(ends):
                async for item in many:
                    items.append(item)  # noqa: PERF401 -- it may raise at the end
        return items, await many.report()

    return asyncio.run(main())


async def asynchronously(requests: Iterable[Any]) -> AsyncIterator[Any]:
    """Yields the requests from an async generator."""
    for request in requests:
        yield request
