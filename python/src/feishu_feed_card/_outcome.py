"""What a call that the platform accepted came back with, as objects that do not change."""

from __future__ import annotations

from feishu_feed_card._native import raise_for_failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """Compares, hashes, pickles and shows itself by its slots."""

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed: {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed: {name!r}")

    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in self.__slots__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), self._values()

    def __repr__(self) -> str:
        shown = ", ".join([f"{name}={getattr(self, name)!r}" for name in self.__slots__])
        return f"{type(self).__name__}({shown})"


_put = object.__setattr__


class FailedUserReason(Record):
    """One user the platform did not reach. To be listed is to have failed.

    Attributes:
        error_code: The platform's code for this user; 0 in its own example.
        error_message: The reason in the platform's words, such as "The user is not in the chat".
        user_id: The user, where the app has the field permission for that kind of id; else None.

    Example:
        >>> FailedUserReason(0, "The user is not in the chat", "ou_1").user_id
        'ou_1'
    """

    __slots__ = ("error_code", "error_message", "user_id")

    error_code: int
    error_message: str
    user_id: str | None

    def __init__(self, error_code: int = 0, error_message: str = "", user_id: str | None = None) -> None:
        _put(self, "error_code", error_code)
        _put(self, "error_message", error_message)
        _put(self, "user_id", user_id)


class Outcome(Record):
    """What a call came back with. Users may have failed one by one: see `ok` and `raise_for_failed`.

    Every user id handed in is in exactly one of `reached`, `failed`, `unknown` and `not_attempted`.

    Attributes:
        failed_user_reasons: The users not reached, in the platform's words. Empty when all were reached.
        log_ids: The platform's log ids, one for each answered request, in the order of the user ids.
        requests: How many HTTP requests were sent for this call, replays included.
        reached: User ids for which the platform took the new state.
        failed: User ids that the platform refused.
        unknown: User ids of which nobody can say: the platform counted failures without naming them.
        not_attempted: User ids that were never sent.

    Example:
        >>> outcome = Outcome(reached=["ou_1"], requests=1)
        >>> outcome.ok
        True
    """

    __slots__ = (
        "failed_user_reasons",
        "log_ids",
        "requests",
        "reached",
        "failed",
        "unknown",
        "not_attempted",
    )

    failed_user_reasons: tuple[FailedUserReason, ...]
    log_ids: tuple[str, ...]
    requests: int
    reached: tuple[str, ...]
    failed: tuple[str, ...]
    unknown: tuple[str, ...]
    not_attempted: tuple[str, ...]

    def __init__(
        self,
        failed_user_reasons: Iterable[FailedUserReason] = (),
        log_ids: Iterable[str] = (),
        requests: int = 0,
        reached: Iterable[str] = (),
        failed: Iterable[str] = (),
        unknown: Iterable[str] = (),
        not_attempted: Iterable[str] = (),
    ) -> None:
        _put(self, "failed_user_reasons", tuple(failed_user_reasons))
        _put(self, "log_ids", tuple(log_ids))
        _put(self, "requests", requests)
        _put(self, "reached", tuple(reached))
        _put(self, "failed", tuple(failed))
        _put(self, "unknown", tuple(unknown))
        _put(self, "not_attempted", tuple(not_attempted))

    @property
    def ok(self) -> bool:
        """Whether every user was reached."""
        return not self.failed_user_reasons

    @property
    def log_id(self) -> str | None:
        """The first request's log id; the platform's support asks for it."""
        return self.log_ids[0] if self.log_ids else None

    def raise_for_failed(self) -> Self:
        """Raises where users were not reached.

        Returns:
            The outcome itself, where all were reached.

        Raises:
            PartialFailureError: Some users were not reached; its `outcome` is this one.

        Example:
            >>> reason = FailedUserReason(0, "not in the chat", "ou_1")
            >>> Outcome(failed_user_reasons=[reason], failed=["ou_1"]).raise_for_failed()
            Traceback (most recent call last):
            feishu_feed_card.PartialFailureError: 1 of 1 users were not reached (ou_1: not in the chat)
        """
        raise_for_failed(self)
        return self
