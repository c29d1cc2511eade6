"""The `progress` callback."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from feishu_feed_card import AsyncClient, Client, InvalidInputError, Progress
from many_players import PIN, assert_adds_up, play, play_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from feishu_feed_card.sandbox import Sandbox


def test_progress_is_reported(player: Callable[..., Any]):
    reported: list[Progress] = []
    thread = []

    def progress(progress: Progress) -> None:
        reported.append(progress)
        thread.append(threading.get_ident())

    requests = [PIN] * 200 + [{**PIN, "feed_card_id": "oc_nowhere"}] * 3 + [None]
    player(requests, progress=progress)
    assert set(thread) == {threading.get_ident()}
    done = [progress.done for progress in reported]
    assert done == sorted(done)
    end = reported[-1]
    assert (end.done, end.failed, end.waiting_for_quota) == (204, 4, 0)


def test_progress_has_the_total_of_a_sized_iterable(client: Client, async_client: AsyncClient):
    for requests, total in (([PIN] * 5, 5), ((PIN for _ in range(5)), None), ({1: PIN}.values(), 1)):
        for way, one in ((play, client), (play_async, async_client)):
            reported: list[Progress] = []
            again = list(requests) if total is None else requests
            way(one, iter(again) if total is None else again, progress=reported.append)
            assert {progress.total for progress in reported} == {total}
            assert reported[-1].eta == (None if total is None else 0)


def test_progress_counts_requests_that_wait_for_the_quota(sandbox: Sandbox):
    reported: list[Progress] = []
    with sandbox.client(rate_limit=(5, 1000)) as client:
        items, _ = play(client, [PIN] * 8, progress=reported.append)
    assert len(items) == 8
    assert any(progress.waiting_for_quota > 0 and (progress.eta or 0) > 0 for progress in reported)
    assert (reported[-1].done, reported[-1].waiting_for_quota, reported[-1].eta) == (8, 0, 0)


@pytest.mark.parametrize("way", ["Client", "AsyncClient"])
def test_progress_is_reported_while_requests_wait_for_the_quota(sandbox: Sandbox, way: str):
    class EnoughError(Exception):
        pass

    def progress(progress: Progress) -> None:
        # Reading pauses after 5 ms: on a busy machine the third may be read after the others are done.
        if (progress.done, progress.waiting_for_quota) == (2, 1):
            waiting.append(progress)
        if len(waiting) == 3:
            raise EnoughError

    waiting: list[Progress] = []
    requests = [PIN] * 3
    with pytest.raises(EnoughError):
        if way == "Client":
            play(sandbox.client(rate_limit=(1000, 2)), requests, progress=progress)
        else:
            play_async(sandbox.async_client(rate_limit=(1000, 2)), requests, progress=progress)
    etas = [progress.eta or 0 for progress in waiting]
    assert etas[0] - 1.5 > etas[2] > 50


def test_an_async_progress_callback_is_refused(client: Client, async_client: AsyncClient):
    async def coroutine(_: Progress) -> None: ...

    async def generator(_: Progress) -> AsyncIterator[int]:
        yield 1

    class Bar:
        async def __call__(self, _: Progress) -> None: ...

        async def show(self, _: Progress) -> None: ...

    for progress in (coroutine, generator, Bar(), Bar().show, functools.partial(coroutine), AsyncMock()):
        for one in (client, async_client):
            with pytest.raises(InvalidInputError, match="async") as caught:
                one.set_time_sensitive_many([PIN], progress=progress)
            assert caught.value.field == "progress"
    bridge = Mock()
    bridge.func = coroutine  # `bridge` may await it
    for fine in (print, str, functools.partial(print), [].append, Progress, Mock(), MagicMock(), bridge):
        client.set_time_sensitive_many([PIN], progress=fine)


def test_an_exception_of_progress_loses_no_item(client: Client):
    def progress(_: Progress) -> None:
        raise LookupError("no bar")

    many = client.set_time_sensitive_many([PIN] * 3, progress=progress)
    with pytest.raises(LookupError, match="no bar"):
        next(many)
    report = many.report()
    assert report.taken == 3
    assert report.succeeded == len(report.unread)
    assert_adds_up(report)


def test_closing_in_the_progress_callback_returns_no_item_twice(sandbox: Sandbox):
    with sandbox.client() as client:
        many = client.set_time_sensitive_many([PIN] * 5, progress=lambda _: many.close())
        handed_out = [item.index for item in many]
        report = many.report()
        unread = [item.index for item in report.unread]
        unfinished = [left.index for left in report.unfinished]
        assert sorted(handed_out + unread + unfinished) == list(range(report.taken))


def test_a_progress_callback_that_raises_ends_the_loop(sandbox: Sandbox):
    def fail(_: object) -> None:
        raise ValueError("a bug of the caller's")

    with sandbox.client() as client:
        many = client.set_time_sensitive_many([PIN] * 5, progress=fail)
        with pytest.raises(ValueError, match="a bug"):
            next(many)
        handed_out = [item.index for item in many]
        report = many.report()
        unread = [item.index for item in report.unread]
        unfinished = [left.index for left in report.unfinished]
        assert sorted(handed_out + unread + unfinished) == list(range(report.taken))
