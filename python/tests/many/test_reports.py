"""`report` and `collect`."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from feishu_feed_card import AsyncClient, Client, DeadlineExceededError, Item, Many, Report, Request
from feishu_feed_card.sandbox import Sandbox
from many_players import PIN, assert_adds_up, asynchronously
from waits import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_the_report_of_a_loop_that_never_began(client: Client, async_client: AsyncClient, sandbox: Sandbox):
    assert client.set_time_sensitive_many([PIN]).report() == Report(0, 0, 0, not_read=1)
    many = async_client.set_time_sensitive_many(asynchronously([PIN]))
    assert asyncio.run(many.report()) == Report(0, 0, 0, not_read=None)
    assert sandbox.request_count() == 0


def test_report_may_be_called_from_another_thread(client: Client, sandbox: Sandbox):
    sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])
    many = client.set_time_sensitive_many([PIN])
    items: list[Item] = []
    thread = threading.Thread(target=lambda: items.extend(many))
    thread.start()
    eventually(lambda: sandbox.request_count() == 2)
    report = many.report()
    thread.join(10)
    assert not thread.is_alive()
    assert items == []
    assert [stopped.unknown for stopped in report.unfinished] == [(sandbox.USER,)]


def test_report_may_be_called_from_the_generator(client: Client):
    def requests() -> Iterator[Request]:
        yield PIN
        reports.append(many.report())
        yield PIN

    reports: list[Report] = []
    many: Many = client.set_time_sensitive_many(requests())
    list(many)
    assert reports[0].taken >= 1
    assert_adds_up(reports[0])


class TestCollect:
    """`collect`."""

    def test_collect_returns_items_by_index_and_the_report(self, client: Client, async_client: AsyncClient):
        requests: list[Request] = [{**PIN, "feed_card_id": chat} for chat in (Sandbox.CHAT, "nowhere")] * 50

        async def main() -> tuple[list[Item], Report]:
            return await async_client.set_time_sensitive_many(requests).collect()

        for items, report in (client.set_time_sensitive_many(requests).collect(), asyncio.run(main())):
            assert [item.index for item in items] == list(range(100))
            assert list(report.failures) == items[1::2]
            assert str(report) == "100 taken: 50 succeeded, 50 failed, 0 unfinished; 0 not read"
            assert report.unread == ()

    def test_collect_returns_the_remaining_items_of_a_loop(self, client: Client):
        many = client.set_time_sensitive_many([PIN] * 10)
        first = next(many)
        items, report = many.collect()
        assert sorted([first.index, *(item.index for item in items)]) == list(range(10))
        assert report.succeeded == 10
        again, same = many.collect()
        assert (again, same) == ([], report)
        assert next(many, None) is None

    def test_collect_does_not_raise_for_the_total_timeout(
        self, client: Client, async_client: AsyncClient, sandbox: Sandbox
    ):
        sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])
        options: Any = {"concurrency": 2, "total_timeout": 0.3}

        async def main() -> tuple[list[Item], Report]:
            return await async_client.set_time_sensitive_many([PIN] * 5, **options).collect()

        for items, report in (
            client.set_time_sensitive_many([PIN] * 5, **options).collect(),
            asyncio.run(main()),
        ):
            assert [type(item.error) for item in items] == [DeadlineExceededError] * 2
            assert str(report) == "2 taken: 0 succeeded, 2 failed, 0 unfinished; 3 not read"

    def test_an_exception_of_the_iterable_loses_no_item_of_collect(
        self, client: Client, async_client: AsyncClient
    ):
        def requests(many: list[Any]) -> Iterator[Request]:
            yield from [PIN] * 5
            eventually(lambda: many[0]._bound.progress()[0] == 5)
            raise DeadlineExceededError("the iterable's own")

        blocking: list[Any] = []
        blocking.append(client.set_time_sensitive_many(requests(blocking), concurrency=10))
        with pytest.raises(DeadlineExceededError, match="the iterable's own"):
            blocking[0].collect()
        assert [item.index for item in blocking[0].report().unread] == [0, 1, 2, 3, 4]

        async def main() -> Report:
            awaited: list[Any] = []
            awaited.append(async_client.set_time_sensitive_many(requests(awaited), concurrency=10))
            with pytest.raises(DeadlineExceededError, match="the iterable's own"):
                await awaited[0].collect()
            return await awaited[0].report()  # type: ignore[no-any-return]

        assert [item.index for item in asyncio.run(main()).unread] == [0, 1, 2, 3, 4]
