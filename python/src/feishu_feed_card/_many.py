"""`Many` and `AsyncMany`, the iterators of many calls. Imported on their first use."""

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


# Passed on, StopIteration would silently end the caller's loop. See PEP 479.
_STOPPED = "the iterable of requests or the progress callback raised StopIteration or StopAsyncIteration"


def _index(item: Item) -> int:
    return item.index


class _Handle:
    """Base of both iterators: the results taken from the core, the progress, the report."""

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
        self._batch: list[Item] = []  # in reverse: the next item is the last one
        self._kept: list[Item] = []  # collected by `collect`
        self._report: Report | None = None
        self._is_over = False

    def _report_progress(self) -> None:
        if self._progress is not None:
            values = self._bound.new_progress()
            if values is not None:
                self._progress(Progress(*values))

    def _pop(self) -> Item:
        """Removes and returns the next item."""
        item = self._batch[-1]
        # Not `pop`: a signal handler that raises when `pop` returns would lose the item.
        del self._batch[-1]
        return item

    def _keep_batch(self) -> None:
        self._kept += self._batch
        # An interrupt before this line leaves the items in both lists. `_report_with` removes the duplicates.
        del self._batch[:]

    def _leave(self) -> None:
        """Ends the iteration and closes a generator of requests, so that its `finally` blocks run."""
        self._is_over = True
        iterator, self._iterator = self._iterator, None
        # Closes only generators. A file also has a `close`, but the caller owns it.
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
        # Must be last: after an interrupt before this line, the report still has the items.
        self._kept, self._report = [], report
        return items, report

    def __repr__(self) -> str:
        name = f"feishu_feed_card.{type(self).__name__}"
        try:
            done = f"{self._bound.progress()[0]} done"
        except RuntimeError:
            done = "of another process"
        return f"<{name}, {done}{', ended' if self._is_over else ''}>"


class Many(_Handle):
    """An iterator of `Item`s, one for each request, in the order in which they finish.

    Returned by `Client.set_time_sensitive_many`. Only one thread may use it at a time. The end of its `with`
    block, `close`, `report`, Ctrl-C and garbage collection stop the requests that are not finished.
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
            raise RuntimeError("another thread is already waiting for the next result")
        if self._iterator is None:
            self._is_over = True
            return
        self._is_waiting = True
        try:
            if not self._bound.next_batch(self._iterator, self._batch):
                self._is_over = True
            self._report_progress()
        except BaseException as error:
            # An exception ends the iteration, as it ends a generator.
            self._is_over = True
            self._bound.stop()
            if isinstance(error, StopIteration):
                raise RuntimeError(_STOPPED) from error
            raise
        finally:
            self._is_waiting = False

    def collect(self) -> tuple[list[Item], Report]:
        """Waits for all calls. Returns the items that iteration has not returned, by index, and the report.

        If `total_timeout` passed or the client was closed before all requests were read, this method does not
        raise an exception, because the items would be lost. `report.not_read` and `str(report)` show the
        number of requests that were not read.

        Raises:
            ClientClosedError: The client was closed before the first result.
            Exception: The iterable's own. The report's `unread` has the items received before.

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
        """Stops the requests that are not finished, and accounts for every request. Ends the iteration.

        Returns:
            The report, the same one on every call.

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
        """Stops the requests that are not finished, and ends the iteration. `report` still works."""
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
    """An async iterator of `Item`s, one for each request, in the order in which they finish.

    Returned by `AsyncClient.set_time_sensitive_many`. Only one task may use it at a time. The end of its
    `async with` block, `aclose`, `report`, garbage collection and cancelling the task that waits for a result
    stop the requests that are not finished.
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
            raise RuntimeError("another task is already waiting for the next result")
        self._is_waiting = True
        try:
            if not await self._wait_for_results():
                self._is_over = True
                if self._feeder is not None:
                    self._feeder.cancel()
                self._report_progress()
        except BaseException as error:
            # An exception or a cancellation ends the iteration, as it ends an async generator.
            self._is_over = True
            self._stop()
            if isinstance(error, StopAsyncIteration):
                raise RuntimeError(_STOPPED) from error
            raise
        finally:
            self._is_waiting = False

    async def _wait_for_results(self) -> bool:
        """Waits for results, or for progress to report. Returns False at the end."""
        bound = self._bound
        loop = running_loop()
        bound.may_read()  # starts the calls
        if self._source is not None and self._feeder is None:
            self._feeder = _Feeder(bound, self._source, loop)
            self._source = None
        if self._feeder is not None and self._feeder.loop is not loop:
            raise RuntimeError(
                "the async iterable of requests is read on another event loop, on which the first result was "
                "requested; request all results on that loop"
            )
        has_more = self._iterator is not None and bound.read(self._iterator)
        waiting = None if has_more else bound.ready()
        if waiting is not None:
            await _end_of(waiting)
        if not bound.take(self._batch):
            return False
        if self._feeder is not None:
            self._feeder.wake()
        self._report_progress()
        if waiting is None:
            from asyncio import sleep

            # Let the loop's other tasks run, also when results are always available or the iterable is slow.
            await sleep(0)
        return True

    def _stop(self) -> None:
        self._bound.stop()
        if self._feeder is not None:
            self._feeder.cancel()

    async def collect(self) -> tuple[list[Item], Report]:
        """Waits for all calls. Returns the items that iteration has not returned, by index, and the report.

        If `total_timeout` passed or the client was closed before all requests were read, this method does not
        raise an exception, because the items would be lost. `report.not_read` and `str(report)` show the
        number of requests that were not read.

        Raises:
            ClientClosedError: The client was closed before the first result.
            Exception: The iterable's own. The report's `unread` has the items received before.

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
        """Stops the requests that are not finished, and accounts for every request. Ends the iteration.

        Returns:
            The report, the same one on every call.

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
        """Stops the requests that are not finished, and ends the iteration. `report` still works."""
        self._stop()
        try:
            if self._feeder is not None:
                await self._feeder.end()
        finally:
            # The future also completes for results, so wait until the end is reached.
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
    """Reads an async iterable in a task. Does not refer to the `AsyncMany`, which may be collected."""

    def __init__(self, bound: _native.Many, source: AsyncIterable[Request], loop: AbstractEventLoop) -> None:
        self._bound = bound
        self._source = source
        self._room: Future[None] | None = None
        self._is_cancelled = False
        self._has_ended = False
        self.loop = loop
        self.task = loop.create_task(self._feed())

    def wake(self) -> None:
        """Lets the task read on, because results were taken."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def cancel(self) -> None:
        """Cancels the task. May be called on any event loop."""
        self._is_cancelled = True
        if self._is_running():
            self.task.cancel()
        else:
            self.cancel_soon()

    def cancel_soon(self) -> None:
        """Schedules the cancellation. May be called in any thread, also after the loop was closed."""
        self._is_cancelled = True
        try:  # noqa: SIM105 -- would import contextlib
            self.loop.call_soon_threadsafe(self.task.cancel)
        except RuntimeError:
            pass  # the loop is closed

    async def end(self) -> None:
        """Waits for the end of the task, if its loop is the running one.

        Raises:
            Exception: The iterable's own, raised when it was closed. Only the first call raises it.
        """
        if self._is_running() and not self._has_ended:
            from asyncio import wait

            await wait([self.task])
            self._has_ended = True
            if not self.task.cancelled():
                self.task.result()

    def _is_running(self) -> bool:
        """Whether the task's loop runs in this thread. Coroutines may also be closed after their loop."""
        from asyncio import _get_running_loop

        return _get_running_loop() is self.loop

    async def _feed(self) -> None:
        iterator: AsyncIterator[Request] | None = None
        try:
            iterator = self._source.__aiter__()
            async for request in iterator:
                if not self._bound.push(request) and not await self._wait_for_room():
                    break
            else:
                self._bound.end_reading()
        except Exception as error:
            if self._is_cancelled:
                raise  # nobody takes results anymore
            self._bound.fail(error)
        except BaseException as error:
            if self._is_cancelled:
                self._bound.stop()
            else:
                # A cancellation from inside the iterable, of something that it waits for.
                self._bound.fail(error)
            raise
        finally:
            if hasattr(iterator, "athrow"):
                await iterator.aclose()  # type: ignore[union-attr]

    async def _wait_for_room(self) -> bool:
        """Waits until another request may be read. Returns False if no more requests are accepted."""
        while self._bound.is_reading():
            if self._bound.may_read():
                return True
            self._room = self.loop.create_future()
            await self._room
        return False
