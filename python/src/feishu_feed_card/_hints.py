"""Names for `typing.get_type_hints`, without importing `typing` together with the package."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Late(str):
    """A type's source text. `typing` evaluates a string that it finds in place of a type."""

    __slots__ = ()

    def _value(self) -> Any:
        return eval(self)

    def __getitem__(self, key: Any) -> Any:
        if type(key) is int:  # a bool is the argument of Literal[False]
            return str.__getitem__(self, key)
        return self._value()[key]

    def __or__(self, other: Any) -> Any:
        return self._value() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._value()


HINTS = {
    name: _Late(f"__import__({module!r}, fromlist=[{name!r}]).{name}")
    for module, names in {
        "collections.abc": "AsyncIterable Callable Iterable Iterator",
        "types": "TracebackType",
        "typing": "Any Literal NoReturn",
        "feishu_feed_card._many": "AsyncMany Many",
        "feishu_feed_card._types": "ClientOptions ConnectionReason Request Self Station TokenProvider "
        "Unpack UserIds UserIdType",
    }.items()
    for name in names.split()
}
"""Entries for a module's `globals()`, in place of the names that it imports only for type checkers."""
