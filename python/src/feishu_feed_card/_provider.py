"""Runs token providers. Imported when the first client with a provider is created."""

from __future__ import annotations

import contextvars
import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from feishu_feed_card import _threads

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Awaitable, Callable

    from feishu_feed_card._native import ProviderResult, QueueReader

    _Args: TypeAlias = list[str | None]
    """A provider's arguments: none, or the refused token."""

_NAME = "refused_token"
_TASKS = "_feishu_feed_card_tasks"
"""Attribute of an event loop that holds our tasks. The loop itself holds only weak references to tasks."""


def takes_refused(provider: Callable[..., Any]) -> bool | None:
    """Returns whether a provider has a parameter `refused_token`, or None if we cannot call it."""
    try:
        own = inspect.signature(provider, follow_wrapped=False)
        # A decorator may take `**kwargs` only: then look at the function that it wraps.
        named = own if _NAME in own.parameters else inspect.signature(provider)
    except Exception:  # a C function, or an unreadable signature
        return False
    takes = _NAME in named.parameters and _fits(own, refused_token=None)
    return takes if takes or _fits(own) else None


def _fits(signature: inspect.Signature, **kwargs: object) -> bool:
    try:
        signature.bind(**kwargs)
    except TypeError:
        return False
    return True


def _take_arguments(args: _Args) -> dict[str, str | None]:
    """Moves the arguments out of the list. Tracebacks may show a frame's variables; a token is secret."""
    taken: dict[str, str | None] = {_NAME: args[0]} if args else {}
    args.clear()
    return taken


def run_in_thread(provider: Callable[..., Any], args: _Args, result: ProviderResult) -> None:
    """Calls a provider in a new thread. If it blocks, no call is delayed beyond its deadline."""
    _in_thread_or_report(_run, result, provider, args, result)


def start_reader(reader: QueueReader) -> None:
    """Starts a thread that runs the provider for many calls, also while no thread waits for a result."""
    _in_thread(_read_queue, reader)


def _read_queue(reader: QueueReader) -> None:
    while (call := reader.next_call()) is not None:
        run_in_thread(*call)


def run_on_loop(
    provider: Callable[..., Any], args: _Args, result: ProviderResult, context: contextvars.Context | None
) -> None:
    """Calls a provider on the running event loop, in the context of the call that needs the token."""
    import asyncio

    context = contextvars.Context() if context is None else context
    loop = asyncio.get_running_loop()
    if _is_async(provider):
        context.run(_start, loop, provider, args, result)
    else:
        context.run(_in_thread_or_report, _run_for_loop, result, provider, args, result, loop)


def _is_async(provider: Callable[..., Any]) -> bool:
    call = getattr(provider, "__call__", None)  # noqa: B004 -- an object may have an async one
    return inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(call)


def _in_thread(target: Callable[..., None], *args: object) -> None:
    context = contextvars.copy_context()
    name = "feishu-feed-card token provider"
    _threads.start(name, context.run, target, *args)


def _in_thread_or_report(target: Callable[..., None], result: ProviderResult, *args: object) -> None:
    try:
        _in_thread(target, *args)
    except RuntimeError as error:  # the system cannot start another thread
        result.set_no_thread(str(error))


def _run(provider: Callable[..., Any], args: _Args, result: ProviderResult) -> None:
    try:
        token = provider(**_take_arguments(args))
        if inspect.isawaitable(token):
            import asyncio

            token = asyncio.run(_result(token))
    except BaseException as error:
        result.set_exception(error)
    else:
        result.set_token(token)


def _run_for_loop(
    provider: Callable[..., Any], args: _Args, result: ProviderResult, loop: AbstractEventLoop
) -> None:
    try:
        token = provider(**_take_arguments(args))
        if inspect.isawaitable(token):
            _hand_over(loop, token, result)
            return
    except BaseException as error:
        result.set_exception(error)
    else:
        result.set_token(token)


def _hand_over(loop: AbstractEventLoop, token: Awaitable[Any], result: ProviderResult) -> None:
    try:
        loop.call_soon_threadsafe(_start, loop, lambda: token, [], result)
    except RuntimeError:  # the loop is closed
        result.abandon()
        if inspect.iscoroutine(token):
            token.close()


def _start(
    loop: AbstractEventLoop, provider: Callable[..., Awaitable[Any]], args: _Args, result: ProviderResult
) -> None:
    task = loop.create_task(_run_async(provider, args, result))
    tasks: set[Task[None]] | None = getattr(loop, _TASKS, None)
    if tasks is None:
        tasks = set()
        setattr(loop, _TASKS, tasks)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _run_async(provider: Callable[..., Awaitable[Any]], args: _Args, result: ProviderResult) -> None:
    from asyncio import CancelledError

    try:
        token = await provider(**_take_arguments(args))
    except (CancelledError, GeneratorExit):
        # The event loop is closing, or was closed. A call on another loop may call the provider again.
        result.abandon()
        raise
    except BaseException as error:
        result.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        result.set_token(token)


async def _result(awaitable: Awaitable[object]) -> object:
    return await awaitable
