"""Runs token providers. Imported when the first client with a provider is created."""

from __future__ import annotations

import contextvars
import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from feishu_feed_card import _threads

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Awaitable, Callable

    from feishu_feed_card._native import Answer, Attendant

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


def _taken(args: _Args) -> dict[str, str | None]:
    """Moves the arguments out of the list. Tracebacks may show a frame's variables; a token is secret."""
    taken: dict[str, str | None] = {_NAME: args[0]} if args else {}
    args.clear()
    return taken


def ask_in_thread(provider: Callable[..., Any], args: _Args, answer: Answer) -> None:
    """Calls a provider in a new thread. If it blocks, no call is delayed beyond its deadline."""
    _in_thread_or_refuse(_ask, answer, provider, args, answer)


def attend(attendant: Attendant) -> None:
    """Starts a thread that runs the provider for many calls, also while no thread waits for a result."""
    _in_thread(_attend, attendant)


def _attend(attendant: Attendant) -> None:
    while (question := attendant.next_question()) is not None:
        ask_in_thread(*question)


def ask_on_loop(
    provider: Callable[..., Any], args: _Args, answer: Answer, context: contextvars.Context | None
) -> None:
    """Calls a provider on the running event loop, in the context of the call that needs the token."""
    import asyncio

    context = contextvars.Context() if context is None else context
    loop = asyncio.get_running_loop()
    if _is_async(provider):
        context.run(_start, loop, provider, args, answer)
    else:
        context.run(_in_thread_or_refuse, _ask_for_loop, answer, provider, args, answer, loop)


def _is_async(provider: Callable[..., Any]) -> bool:
    call = getattr(provider, "__call__", None)  # noqa: B004 -- an object may have an async one
    return inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(call)


def _in_thread(target: Callable[..., None], *args: object) -> None:
    context = contextvars.copy_context()
    name = "feishu-feed-card token provider"
    _threads.start(name, context.run, target, *args)


def _in_thread_or_refuse(target: Callable[..., None], answer: Answer, *args: object) -> None:
    try:
        _in_thread(target, *args)
    except RuntimeError as error:  # the system cannot start another thread
        answer.refuse(str(error))


def _ask(provider: Callable[..., Any], args: _Args, answer: Answer) -> None:
    try:
        token = provider(**_taken(args))
        if inspect.isawaitable(token):
            import asyncio

            token = asyncio.run(_result(token))
    except BaseException as error:
        answer.fail(error)
    else:
        answer.give(token)


def _ask_for_loop(provider: Callable[..., Any], args: _Args, answer: Answer, loop: AbstractEventLoop) -> None:
    try:
        token = provider(**_taken(args))
        if inspect.isawaitable(token):
            _hand_over(loop, token, answer)
            return
    except BaseException as error:
        answer.fail(error)
    else:
        answer.give(token)


def _hand_over(loop: AbstractEventLoop, token: Awaitable[Any], answer: Answer) -> None:
    try:
        loop.call_soon_threadsafe(_start, loop, lambda: token, [], answer)
    except RuntimeError:  # the loop is closed
        answer.abandon()
        if inspect.iscoroutine(token):
            token.close()


def _start(
    loop: AbstractEventLoop, provider: Callable[..., Awaitable[Any]], args: _Args, answer: Answer
) -> None:
    task = loop.create_task(_ask_async(provider, args, answer))
    tasks: set[Task[None]] | None = getattr(loop, _TASKS, None)
    if tasks is None:
        tasks = set()
        setattr(loop, _TASKS, tasks)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _ask_async(provider: Callable[..., Awaitable[Any]], args: _Args, answer: Answer) -> None:
    from asyncio import CancelledError

    try:
        token = await provider(**_taken(args))
    except (CancelledError, GeneratorExit):
        # The event loop is closing, or was closed. A call on another loop may call the provider again.
        answer.abandon()
        raise
    except BaseException as error:
        answer.fail(error)
        if not isinstance(error, Exception):
            raise
    else:
        answer.give(token)


async def _result(awaitable: Awaitable[object]) -> object:
    return await awaitable
