"""Many calls as one line: the handles, and what they give. Imported when the first one is made."""

from __future__ import annotations

from feishu_feed_card import _native
from feishu_feed_card._hints import HINTS
from feishu_feed_card._native import Item, Progress, Report, running_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from feishu_feed_card._types import Request
else:
    globals().update(HINTS)


# An iterator that raised it would end quietly: see PEP 479.
_STOPPED = "the iterable of requests or the progress callback raised the exception that ends a loop"


def _index(item: Item) -> int:
    return item.index


class _Handle:
    """What both handles have in common: the results on hand, the progress, the report."""

    _is_waiting = False

    def __init__(
        self,
        bound: _native.Many,
        iterator: Iterator[Request] | None,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._bound = bound
        self._iterator = iterator
        self._progress = progress
        self._batch: list[Item] = []  # the next one last
        self._kept: list[Item] = []  # for `collect`
        self._report: Report | None = None
        self._is_over = False

    def _tell(self) -> None:
        if self._progress is not None:
            values = self._bound.new_progress()
            if values is not None:
                self._progress(Progress(*values))

    def _pop(self) -> Item:
        """Takes the next result."""
        item = self._batch[-1]
        # No `pop`: a signal handler that raises as a function returns would lose what it returns.
        del self._batch[-1]
        return item

    def _keep_batch(self) -> None:
        self._kept += self._batch
        # An interrupt before this leaves them in both: the report has each once.
        del self._batch[:]

    def _leave(self) -> None:
        """Hands nothing more out, and lets the iterable go: a generator's `finally` runs."""
        self._is_over = True
        iterator, self._iterator = self._iterator, None
        # A file has a `close`, too, but it is the caller's.
        if hasattr(iterator, "throw") and not getattr(iterator, "gi_running", False):
            iterator.close()  # type: ignore[union-attr]

    def _reported(self) -> Report:
        if self._report is None:
            self._report = self._report_with(self._kept)
        return self._report

    def _report_with(self, kept: list[Item]) -> Report:
        taken, succeeded, failed, items, unfinished, failures, not_read = self._bound.report()
        by_index = {item.index: item for item in (*items, *self._batch, *kept)}
        unread = sorted(by_index.values(), key=_index)
        failures.sort(key=_index)
        return Report(taken, succeeded, failed, unread, unfinished, failures, not_read)

    def _collected(self) -> tuple[list[Item], Report]:
        items = sorted(self._kept, key=_index)
        report = self._report or self._report_with([])
        # Last: an interrupt before this leaves the items to the report.
        self._kept, self._report = [], report
        return items, report

    def __repr__(self) -> str:
        name = f"feishu_feed_card.{type(self).__name__}"
        try:
            done = f"{self._bound.progress()[0]} done"
        except RuntimeError:
            done = "of another process"
        return f"<{name}, {done}{', left' if self._is_over else ''}>"


class Many(_Handle):
    """Many calls of a `Client`: an iterator of `Item`s, one for each request, as they finish.

    Made by `Client.set_time_sensitive_many`. For one thread at a time. Leaving its `with` block, `close`,
    `report` and Ctrl-C stop what is still on its way, and so does dropping it.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        self._bound.check_process()
        while not self._is_over:
            if self._batch:
                return self._pop()
            self._next_batch()
        raise self._bound.take_error() or StopIteration

    def _next_batch(self) -> None:
        if self._is_waiting:
            raise RuntimeError("another thread waits for the next result")
        if self._iterator is None:
            self._is_over = True
            return
        self._is_waiting = True
        try:
            if not self._bound.next_batch(self._iterator, self._batch):
                self._is_over = True
            self._tell()
        except BaseException as error:
            # As with a generator: where an error comes through, that is the end.
            self._is_over = True
            self._bound.stop()
            if isinstance(error, StopIteration):
                raise RuntimeError(_STOPPED) from error
            raise
        finally:
            self._is_waiting = False

    def collect(self) -> tuple[list[Item], Report]:
        """Returns the items that the loop has not returned, by index, and the report.

        If not all requests were read, because `total_timeout` passed or the client was closed, nothing is
        raised, as the items would be lost: `report.not_read` and the report's text say it. Raises
        `ClientClosedError` if the client was closed before the first result, and any exception of the
        iterable; items received before it are in the report's `unread`.

        Example:
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> with Sandbox() as sandbox, sandbox.client() as client:
            ...     pin = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}
            ...     requests = [{**pin, "tag": "row 1"}, {**pin, "user_ids": [], "tag": "row 2"}]
            ...     items, report = client.set_time_sensitive_many(requests).collect()
            >>> print(report)
            2 taken: 1 succeeded, 1 failed, 0 unfinished; 0 not read
            >>> [item.tag for item in report.failures]
            ['row 2']
        """
        self._bound.check_process()
        self._keep_batch()
        while not self._is_over:
            self._next_batch()
            self._keep_batch()
        self.close()
        return self._collected()

    def report(self) -> Report:
        """Tells what became of every request. Stops what is still on its way; nothing more comes after.

        Returns:
            The same each time.

        Example:
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> with Sandbox() as sandbox, sandbox.client() as client:
            ...     pin = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}
            ...     many = client.set_time_sensitive_many([pin, pin, pin], concurrency=1)
            ...     item = next(many)
            ...     report = many.report()
            >>> report.taken == report.succeeded + report.failed + len(report.unfinished)
            True
        """
        self.close()
        return self._reported()

    def close(self) -> None:
        """Stops what is still on its way. The report can still be asked for."""
        self._bound.leave()
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncMany(_Handle):
    """Many calls of an `AsyncClient`: an async iterator of `Item`s, one for each request, as they finish.

    Made by `AsyncClient.set_time_sensitive_many`. For one task at a time. Leaving its `async with` block,
    `aclose`, `report` and cancelling the task that waits for a result stop what is still on its way, and so
    does dropping it.
    """

    _feeder: _Feeder | None = None

    def __init__(
        self,
        bound: _native.Many,
        iterator: Iterator[Request] | None,
        progress: Callable[[Progress], object] | None,
        source: AsyncIterable[Request] | None,
    ) -> None:
        super().__init__(bound, iterator, progress)
        self._source = source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        self._bound.check_process()
        while not self._is_over:
            if self._batch:
                return self._pop()
            await self._next_batch()
        raise self._bound.take_error() or StopAsyncIteration

    async def _next_batch(self) -> None:
        if self._is_waiting:
            raise RuntimeError("another task waits for the next result")
        self._is_waiting = True
        try:
            if not await self._finds_results():
                self._is_over = True
                if self._feeder is not None:
                    self._feeder.cancel()
                self._tell()
        except BaseException as error:
            # As with a generator: where an error or a cancellation comes through, that is the end.
            self._is_over = True
            self._stop()
            if isinstance(error, StopAsyncIteration):
                raise RuntimeError(_STOPPED) from error
            raise
        finally:
            self._is_waiting = False

    async def _finds_results(self) -> bool:
        """Waits for results, or for progress to report; False at the end."""
        bound = self._bound
        loop = running_loop()
        bound.may_read()  # begins
        if self._source is not None and self._feeder is None:
            self._feeder = _Feeder(bound, self._source, loop)
            self._source = None
        if self._feeder is not None and self._feeder.loop is not loop:
            raise RuntimeError("the requests are read on another event loop: that of the first result")
        has_more = self._iterator is not None and bound.read(self._iterator)
        waiting = None if has_more else bound.ready()
        if waiting is not None:
            await _end_of(waiting)
        if not bound.take(self._batch):
            return False
        if self._feeder is not None:
            self._feeder.wake()
        self._tell()
        if waiting is None:
            from asyncio import sleep

            # Neither results that come as fast as they are taken nor an iterable that is slow may keep the
            # loop's other tasks waiting.
            await sleep(0)
        return True

    def _stop(self) -> None:
        self._bound.stop()
        if self._feeder is not None:
            self._feeder.cancel()

    async def collect(self) -> tuple[list[Item], Report]:
        """Returns the items that the loop has not returned, by index, and the report.

        If not all requests were read, because `total_timeout` passed or the client was closed, nothing is
        raised, as the items would be lost: `report.not_read` and the report's text say it. Raises
        `ClientClosedError` if the client was closed before the first result, and any exception of the
        iterable; items received before it are in the report's `unread`.

        Example:
            >>> import asyncio
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> async def main(sandbox: Sandbox) -> None:
            ...     async with sandbox.async_client() as client:
            ...         users = [sandbox.USER]
            ...         pin = {"feed_card_id": sandbox.CHAT, "user_ids": users, "time_sensitive": True}
            ...         items, report = await client.set_time_sensitive_many([pin, pin]).collect()
            ...         print(report)
            >>> with Sandbox() as sandbox:
            ...     asyncio.run(main(sandbox))
            2 taken: 2 succeeded, 0 failed, 0 unfinished; 0 not read
        """
        self._bound.check_process()
        self._keep_batch()
        while not self._is_over:
            await self._next_batch()
            self._keep_batch()
        await self.aclose()
        return self._collected()

    async def report(self) -> Report:
        """Tells what became of every request. Stops what is still on its way; nothing more comes after.

        Returns:
            The same each time.

        Example:
            >>> import asyncio
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> async def main() -> None:
            ...     with Sandbox() as sandbox:
            ...         async with sandbox.async_client() as client:
            ...             pin = {
            ...                 "feed_card_id": sandbox.CHAT,
            ...                 "user_ids": [sandbox.USER],
            ...                 "time_sensitive": True,
            ...             }
            ...             async with client.set_time_sensitive_many([pin, pin]) as many:
            ...                 async for item in many:
            ...                     pass
            ...             print((await many.report()).succeeded)
            >>> asyncio.run(main())
            2
        """
        await self.aclose()
        return self._reported()

    async def aclose(self) -> None:
        """Stops what is still on its way. The report can still be asked for."""
        self._stop()
        try:
            if self._feeder is not None:
                await self._feeder.end()
        finally:
            # Results that were on their way to the end wake this too.
            while (waiting := self._bound.ended()) is not None:
                await _end_of(waiting)
            self._source = None
            self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._feeder is not None:
            self._feeder.cancel_soon()


async def _end_of(waiting: tuple[Future[None], _native.CallHandle]) -> None:
    future, call = waiting
    try:
        await future
    finally:
        call.cancel()


class _Feeder:
    """Reads an async iterable in a task of its own. It does not know the handle, which may be dropped."""

    def __init__(self, bound: _native.Many, source: AsyncIterable[Request], loop: AbstractEventLoop) -> None:
        self._bound = bound
        self._source = source
        self._room: Future[None] | None = None
        self._is_cancelled = False
        self._has_ended = False
        self.loop = loop
        self.task = loop.create_task(self._feed())

    def wake(self) -> None:
        """Says that results were taken: there is room again."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def cancel(self) -> None:
        """From the loop itself, or from any other."""
        self._is_cancelled = True
        if self._is_running():
            self.task.cancel()
        else:
            self.cancel_soon()

    def cancel_soon(self) -> None:
        """From any thread, also when the loop is gone."""
        self._is_cancelled = True
        try:  # noqa: SIM105 -- contextlib would have to be loaded
            self.loop.call_soon_threadsafe(self.task.cancel)
        except RuntimeError:
            pass  # closed

    async def end(self) -> None:
        """Waits for the task's end, where its loop is the one that runs.

        Raises, once, what the source raised as it was closed.
        """
        if self._is_running() and not self._has_ended:
            from asyncio import wait

            await wait([self.task])
            self._has_ended = True
            if not self.task.cancelled():
                self.task.result()

    def _is_running(self) -> bool:
        """Whether this is the loop's thread, and the loop runs: a coroutine is also closed after its loop."""
        from asyncio import _get_running_loop

        return _get_running_loop() is self.loop

    async def _feed(self) -> None:
        iterator: AsyncIterator[Request] | None = None
        try:
            iterator = self._source.__aiter__()
            async for request in iterator:
                if not self._bound.push(request) and not await self._finds_room():
                    break
            else:
                self._bound.end_reading()
        except Exception as error:
            if self._is_cancelled:
                raise  # nobody asks for results any more
            self._bound.fail(error)
        except BaseException as error:
            if self._is_cancelled:
                self._bound.stop()
            else:
                # The source's own: what it waits for was cancelled.
                self._bound.fail(error)
            raise
        finally:
            if hasattr(iterator, "athrow"):
                await iterator.aclose()  # type: ignore[union-attr]

    async def _finds_room(self) -> bool:
        """Waits for room; False where no more is wanted."""
        while self._bound.is_reading():
            if self._bound.may_read():
                return True
            self._room = self.loop.create_future()
            await self._room
        return False
