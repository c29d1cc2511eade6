"""A wrong call is an error of this package, too: an unknown keyword, an argument missing or too many."""

from __future__ import annotations

from feishu_feed_card._native import invalid_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])

_CO_COROUTINE = 0x80


def checked(function: _F) -> _F:
    """Makes a call that does not fit the signature an InvalidInputError that names the argument."""
    if function.__code__.co_flags & _CO_COROUTINE:

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            try:
                coroutine = function(*args, **kwargs)
            except TypeError:
                raise _mismatch(function, args, kwargs) from None
            return await coroutine

        call: Callable[..., Any] = call_async
    else:

        def call_blocking(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                # Where the function's own frame is in the traceback, the call did fit.
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise
                raise _mismatch(function, args, kwargs) from None

        call = call_blocking

    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        setattr(call, name, getattr(function, name))
    call.__wrapped__ = function  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _mismatch(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception:
    code = function.__code__
    positional = code.co_varnames[1 : code.co_argcount]
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    given = args[1:]
    for name in kwargs:
        if name not in names:
            return invalid_input(name, "not an option", f"one of {', '.join(names)}")
        if name in positional[: len(given)]:
            return invalid_input(name, "given twice", "one value")
    if len(given) > len(positional):
        return invalid_input(
            names[len(positional)] if len(names) > len(positional) else function.__name__,
            f"{len(given)} positional arguments",
            f"at most {len(positional)}, and keywords for the rest",
        )
    required = positional[: len(positional) - len(function.__defaults__ or ())]
    missing = [name for name in required[len(given) :] if name not in kwargs]
    return invalid_input(missing[0], "missing", "a value")
