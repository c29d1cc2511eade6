"""`set_time_sensitive_many`: items, reading ahead, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import pickle
import sys
import threading
import time
import weakref
from collections import UserDict
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

import needs
from counters import threads
from event_loops import RUNNERS
from feishu_feed_card import (
    AsyncClient,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    FeedCardError,
    InvalidInputError,
    Item,
    Many,
    Progress,
    RejectedError,
    Report,
    Request,
)
from feishu_feed_card.sandbox import Sandbox
from scripts import run
from vaults import Vault, token
from waits import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

PIN: Request = {"feed_card_id": Sandbox.CHAT, "user_ids": [Sandbox.USER], "time_sensitive": True}
MOST_IN_A_BATCH = 64


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox without frequency limits."""
    with Sandbox({"switches": {"per_second": None, "per_minute": None}}) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Client]:
    """A client without pacing and without late arrival."""
    with sandbox.client(rate_limit=None, late_arrival=0) as client:
        yield client


@pytest.fixture
def async_client(sandbox: Sandbox) -> AsyncClient:
    """An `AsyncClient` without pacing and without late arrival."""
    return sandbox.async_client(rate_limit=None, late_arrival=0)


def assert_adds_up(report: Report) -> None:
    """Checks that the report accounts for each request once."""
    assert report.taken == report.succeeded + report.failed + len(report.unfinished)


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


@pytest.fixture(params=["Client", "AsyncClient", "AsyncClient from async"])
def player(request: pytest.FixtureRequest, client: Client, async_client: AsyncClient) -> Callable[..., Any]:
    """`play` with each kind of client and of source."""

    def player(requests: Iterable[Any], **options: Any) -> tuple[list[Item], Report]:
        if request.param == "Client":
            return play(client, requests, **options)
        if request.param == "AsyncClient":
            return play_async(async_client, requests, **options)
        return play_async(async_client, asynchronously(requests), **options)

    return player


@pytest.mark.parametrize("concurrency", [None, 1, 7, 10_000])
def test_each_request_has_one_item(player: Callable[..., Any], sandbox: Sandbox, concurrency: int | None):
    requests = [dict(PIN) for _ in range(300)]
    items, report = player((request for request in requests), concurrency=concurrency)
    assert sorted(item.index for item in items) == list(range(300))
    for item in items:
        assert item.request is requests[item.index], "the same object"
        assert item.error is None
        assert item.outcome is not None
        assert item.outcome.reached == (sandbox.USER,)
    assert report == Report(taken=300, succeeded=300, failed=0)
    assert sandbox.token_fetches() == 1


def test_no_requests_have_no_items(player: Callable[..., Any]):
    reported: list[Progress] = []
    assert player([], progress=reported.append) == ([], Report(0, 0, 0))
    assert reported
    assert reported[-1].done == 0


def test_a_failed_request_does_not_stop_the_others(player: Callable[..., Any], sandbox: Sandbox):
    items, report = player([PIN, {**PIN, "feed_card_id": "oc_nowhere"}, PIN, {**PIN, "user_ids": ["ou_no"]}])
    errors = {item.index: item.error for item in items}
    assert errors[0] is errors[2] is None
    assert isinstance(errors[1], RejectedError)
    assert errors[1].platform_code == 232006
    assert (report.taken, report.succeeded, report.failed) == (4, 2, 2)


def test_requests_may_be_any_mapping_with_optional_keys(player: Callable[..., Any], sandbox: Sandbox):
    union_id = "on_" + sandbox.USER[3:]
    sandbox.put_user({"open_id": sandbox.USER, "union_id": union_id})
    items, _ = player(
        [
            UserDict(PIN),
            {**PIN, "user_ids": [union_id], "user_id_type": "union_id", "timeout": 5},
            {**PIN, "user_ids": (user for user in [sandbox.USER]), "timeout": None},
        ]
    )
    assert [(item.index, item.error) for item in sorted(items, key=lambda item: item.index)] == [
        (0, None),
        (1, None),
        (2, None),
    ]


class Id(str):
    """A subclass of `str`."""

    __slots__ = ()


@pytest.mark.parametrize(
    "user_ids",
    [
        lambda: [Sandbox.USER],
        lambda: (Sandbox.USER,),
        lambda: [Sandbox.USER, Sandbox.USER],
        lambda: [Id(Sandbox.USER)],
        lambda: {Sandbox.USER},
        lambda: (user for user in [Sandbox.USER]),
    ],
    ids=["list", "tuple", "repeated", "subclass", "set", "generator"],
)
def test_the_reached_ids_are_those_that_were_sent(player: Callable[..., Any], user_ids: Callable[[], Any]):
    handed_in = [user_ids() for _ in range(3)]

    def requests() -> Iterator[Any]:
        for ids in handed_in:
            yield {**PIN, "user_ids": ids}
            if isinstance(ids, list):
                ids[:] = ["ou_changed", "ou_later"]

    items, _ = player(requests())
    for item in items:
        assert item.outcome.reached == (Sandbox.USER,)
        assert type(item.outcome.reached[0]) is str


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (3, "request"),
        (None, "request"),
        ("oc_1", "request"),
        ({}, "user_ids"),
        ({"user_ids": [Sandbox.USER], "time_sensitive": True}, "feed_card_id"),
        ({"feed_card_id": Sandbox.CHAT, "time_sensitive": True}, "user_ids"),
        ({**PIN, "feed_card_id": b"oc_1"}, "feed_card_id"),
        ({**PIN, "feed_card_id": "nowhere"}, "feed_card_id"),
        ({**PIN, "user_ids": "ou_1"}, "user_ids"),
        ({**PIN, "user_ids": [1]}, "user_ids[0]"),
        ({**PIN, "user_ids": []}, "user_ids"),
        ({**PIN, "time_sensitive": 1}, "time_sensitive"),
        ({**PIN, "user_id_type": "openid"}, "user_id_type"),
        ({**PIN, "timeout": 0}, "timeout"),
        ({**PIN, "timeout": "5"}, "timeout"),
        ({**PIN, "priority": 1}, "priority"),
        ({**PIN, 1: 1}, "a request's key"),
    ],
)
def test_an_invalid_request_is_the_error_of_its_item(player: Callable[..., Any], request_: Any, field: str):
    items, report = player([PIN, request_, PIN])
    items.sort(key=lambda item: item.index)
    assert [item.error is None for item in items] == [True, False, True]
    assert items[1].request is request_
    assert items[1].outcome is None
    assert isinstance(items[1].error, InvalidInputError)
    assert items[1].error.field == field
    if isinstance(request_, dict) and request_.get("user_ids") == [Sandbox.USER]:
        assert items[1].error.not_attempted == (Sandbox.USER,)
    assert (report.taken, report.succeeded, report.failed) == (3, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"requests": 3}, "requests"),
        ({"requests": "oc_1"}, "requests"),
        ({"requests": PIN}, "requests"),
        ({"requests": [], "concurrency": 0}, "concurrency"),
        ({"requests": [], "concurrency": 1.5}, "concurrency"),
        ({"requests": [], "concurrency": True}, "concurrency"),
        ({"requests": [], "total_timeout": 0}, "total_timeout"),
        ({"requests": [], "total_timeout": float("nan")}, "total_timeout"),
        ({"requests": [], "progress": 1}, "progress"),
        ({"requests": [], "workers": 1}, "workers"),
        ({}, "requests"),
    ],
)
def test_an_invalid_argument_is_refused(
    client: Client, async_client: AsyncClient, arguments: Any, field: str
):
    for one in (client, async_client):
        with pytest.raises(InvalidInputError) as caught:
            one.set_time_sensitive_many(**arguments)
        assert caught.value.field == field


def test_a_blocking_client_refuses_an_async_iterable(client: Client):
    with pytest.raises(InvalidInputError) as caught:
        client.set_time_sensitive_many(asynchronously([PIN]))  # type: ignore[arg-type]
    assert caught.value.field == "requests"


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


def test_a_file_is_not_closed(client: Client, tmp_path):
    path = tmp_path / "requests"
    path.write_text("a\nb\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        with client.set_time_sensitive_many(file) as many:  # type: ignore[arg-type]
            assert isinstance(next(many).error, InvalidInputError)
        assert not file.closed


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


def test_the_report_of_a_loop_that_never_began(client: Client, async_client: AsyncClient, sandbox: Sandbox):
    assert client.set_time_sensitive_many([PIN]).report() == Report(0, 0, 0, not_read=1)
    many = async_client.set_time_sensitive_many(asynchronously([PIN]))
    assert asyncio.run(many.report()) == Report(0, 0, 0, not_read=None)
    assert sandbox.request_count() == 0


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


def test_token_providers_work_in_many_calls(sandbox: Sandbox):
    vault = Vault(sandbox)
    with sandbox.client(token_provider=vault.plain) as client:
        items, _ = play(client, [PIN] * 20)
        assert [item.error for item in items] == [None] * 20
    for provider in (vault.plain, vault.coroutine):
        items, _ = play_async(sandbox.async_client(token_provider=provider), asynchronously([PIN] * 20))
        assert [item.error for item in items] == [None] * 20
    assert len(vault.threads) == 3


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "dropped"])
def test_a_provider_runs_on_the_event_loop_of_the_many_calls(sandbox: Sandbox, keeps: bool):
    """And not on the event loop of the client's last call, which no longer exists."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="lost")
    asked: list[tuple[str, str]] = []
    is_waiting, goes_on = threading.Event(), threading.Event()
    kept: list[Any] = []

    async def provider() -> str:
        asked.append((threading.current_thread().name, variable.get()))
        return token(sandbox)

    client = sandbox.async_client(rate_limit=None, token_provider=provider, timeout=5)

    async def source() -> AsyncIterator[Any]:
        yield PIN
        await asyncio.sleep(0.2)
        is_waiting.set()
        while not goes_on.is_set():
            await asyncio.sleep(0.01)
        yield PIN

    async def many() -> None:
        variable.set("many")
        async for item in client.set_time_sensitive_many(source()):
            assert item.outcome is not None, item.error

    async def single() -> None:
        variable.set("single")
        if keeps:
            kept.append(asyncio.get_running_loop())
        await client.set_bot_time_sensitive([sandbox.USER], True)

    thread = threading.Thread(target=asyncio.run, args=(many(),), name="many")
    thread.start()
    is_waiting.wait(10)
    sandbox.revoke_tokens()
    asyncio.run(single())
    gc.collect()
    sandbox.revoke_tokens()
    goes_on.set()
    thread.join(20)
    assert asked == [("many", "many"), ("MainThread", "single"), ("many", "many")]


def test_a_provider_runs_on_the_event_loop_that_continues_the_many_calls(sandbox: Sandbox):
    vault = Vault(sandbox)
    client = sandbox.async_client(rate_limit=None, token_provider=vault.coroutine, timeout=5)
    many = client.set_time_sensitive_many([PIN] * 2, concurrency=1)

    async def one() -> Item:
        return await many.__anext__()

    assert asyncio.run(one()).error is None
    sandbox.revoke_tokens()
    vault.token = token(sandbox)
    assert asyncio.run(one()).error is None
    assert len(vault.threads) == 2


def test_a_provider_runs_while_no_item_is_awaited(sandbox: Sandbox):
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")
    asked: list[str] = []

    def provider() -> str:
        asked.append(tenant.get())
        return token(sandbox)

    before = threading.active_count()
    tenant.set("one")
    with sandbox.client(token_provider=provider, rate_limit=None) as client:
        assert client.set_bot_time_sensitive([sandbox.USER], True).ok
        calls = sandbox.request_count()
        sandbox.faults([{"on": "call", "delay_before_ms": 300}])
        many = client.set_time_sensitive_many([PIN, {**PIN, "feed_card_id": "nowhere"}])
        assert next(many).index == 1
        eventually(lambda: sandbox.request_count() > calls)
        sandbox.revoke_tokens()
        eventually(lambda: len(asked) == 2)
        assert next(many).error is None
        eventually(lambda: threading.active_count() == before)
        assert next(many, None) is None
    assert asked == ["one", "one"], "in the caller's context"


def test_items_and_reports_can_be_pickled(client: Client):
    items, report = play(client, [{**PIN, "user_ids": ["ou_no"]}, None])
    assert pickle.loads(pickle.dumps(items)) == items
    assert pickle.loads(pickle.dumps(report)) == report
    assert repr(items[0]).startswith(f"Item(index={items[0].index}, request=")
    with pytest.raises(AttributeError, match="not writable"):
        items[0].index = 3  # type: ignore[misc]
    assert [isinstance(item.error, FeedCardError) for item in items] == [item.index == 1 for item in items]
    assert "Many, 0 done" in repr(client.set_time_sensitive_many([]))


@needs.proc
def test_leaving_a_loop_leaves_no_thread(client: Client):
    play(client, [PIN] * 50)
    before = threads()
    for _ in range(30):
        with client.set_time_sensitive_many(PIN for _ in range(1000)) as many:
            next(many)
    assert threads() <= before + 1


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


class TestTag:
    """The `tag` of a request."""

    def test_each_kind_of_item_has_its_tag(self, player: Callable[..., Any]):
        tag = object()
        requests = [
            {**PIN, "tag": tag},
            {**PIN, "tag": None},
            PIN,
            {**PIN, "feed_card_id": "oc_nowhere", "tag": ["unhashable"]},
            {**PIN, "feed_card_id": "nowhere", "tag": 4},
            {**PIN, "timeout": "soon", "tag": 5},
            {"user_ids": 7, "tag": 6},
            UserDict({**PIN, "tag": 7}),
            "no request",
        ]
        items, report = player(iter(requests))
        items.sort(key=lambda item: item.index)
        assert [item.tag for item in items] == [tag, None, None, ["unhashable"], 4, 5, 6, 7, None]
        assert items[0].tag is tag
        assert list(report.failures) == [items[index] for index in (3, 4, 5, 6, 8)]
        assert all(failure is items[failure.index] for failure in report.failures)

    def test_a_tag_is_read_with_its_request(self, client: Client):
        def requests() -> Iterator[Request]:
            request = {**PIN}
            for row in range(5):
                request["tag"] = row
                yield request

        items, _ = client.set_time_sensitive_many(requests()).collect()
        assert [item.tag for item in items] == [0, 1, 2, 3, 4]

    def test_unfinished_requests_have_their_tag(self, client: Client, sandbox: Sandbox):
        sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])

        def users() -> Iterator[str]:
            raise OSError("the list is gone")
            yield

        many = client.set_time_sensitive_many(
            [{**PIN, "tag": "row 1"}, {**PIN, "user_ids": users(), "tag": "row 2"}]
        )
        with pytest.raises(OSError, match="the list is gone"):
            next(many)
        assert [left.tag for left in many.report().unfinished] == ["row 1", "row 2"]

    def test_the_error_for_an_unknown_key_mentions_tag(self, client: Client):
        requests: list[Any] = [{**PIN, "row_id": 7, "tag": "mine"}]
        [item], _ = client.set_time_sensitive_many(requests).collect()
        assert isinstance(item.error, InvalidInputError)
        assert item.error.field == "row_id"
        assert str(item.error) == (
            "row_id: unknown key of a request; expected feed_card_id, user_ids, time_sensitive, "
            "user_id_type, timeout, or tag for any value of yours"
        )
        assert item.error.not_attempted == (Sandbox.USER,)
        assert item.tag == "mine"

    def test_a_tag_in_a_reference_cycle_is_collected(self, client: Client):
        tag = Mock()
        gone = weakref.ref(tag)
        many = client.set_time_sensitive_many([{**PIN, "user_ids": [], "tag": tag}])
        tag.many = many
        next(many)
        del many, tag
        gc.collect()
        assert gone() is None


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
