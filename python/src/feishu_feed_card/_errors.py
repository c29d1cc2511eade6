"""Why a call failed: one class for each kind."""

from __future__ import annotations

from feishu_feed_card._hints import HINTS
from feishu_feed_card._native import FieldViolation, Outcome, PermissionViolation, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from feishu_feed_card._types import ConnectionReason, Station
else:
    globals().update(HINTS)

_MOST_CAUSES = 10
"""Longest chain of causes in `to_dict`: an exception may be its own cause."""


class FeedCardError(Exception):
    """Why a call failed, with all that is known of it. Every error of this package is one.

    `str()` gives a sentence that says what happened, where, and what to do.

    Attributes:
        kind: The kind's name, the same in every language: "RATE_LIMITED".
        field: The argument or option that is wrong, such as "user_ids[3]".
        platform_code: The platform's code.
        msg: The platform's words. They change over the years: show them, never branch on them.
        http_status: The HTTP status of the last answer.
        log_id: The platform's log id of the last answer; its support asks for it.
        retryable: Whether the same call may succeed later without anything being changed.
        retry_after: How many seconds to wait before the call has a chance, where that is known.
        attempts: How many times the request was sent.
        call: The call's number, unique in this process: the `call` of its log records. None if the input was
            refused.
        station: Where on its way the call failed: "order", "quota", "token", "connect", "send", "answer".
        reason: Why there is no connection, or why it broke: "dns", "refused", "unreachable", "timeout",
            "tls_untrusted", "tls_expired", "tls_name", "tls", "proxy", "proxy_auth", "closed". Only of a
            ConnectionFailedError, and None if nothing is wrong with the connection itself, as when the
            process has no file descriptor left.
        hint: What to do, in one sentence.
        permission_violations: The permissions that the platform says are missing.
        field_violations: The fields that the platform refused.
        reached: User ids for which the platform took the new state, of a call that was split.
        failed: User ids that the platform refused.
        unknown: User ids that were sent, and of which nobody can say what became.
        not_attempted: User ids that were never sent.
        outcome: What those requests of a split call that succeeded came back with; of a
            PartialFailureError, the outcome it was made of.

    Example:
        >>> from feishu_feed_card import FeedCardError
        >>> from feishu_feed_card.sandbox import Sandbox
        >>> with Sandbox() as sandbox, sandbox.client() as client:
        ...     try:
        ...         client.set_time_sensitive("oc_nowhere", [sandbox.USER], True)
        ...     except FeedCardError as error:
        ...         print(error.kind, error.platform_code, error.not_attempted)
        REJECTED 232006 ()
    """

    kind = ""

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        platform_code: int | None = None,
        msg: str | None = None,
        http_status: int | None = None,
        log_id: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        attempts: int = 0,
        call: int | None = None,
        station: Station | None = None,
        reason: ConnectionReason | None = None,
        hint: str | None = None,
        permission_violations: Iterable[PermissionViolation] = (),
        field_violations: Iterable[FieldViolation] = (),
        reached: Iterable[str] = (),
        failed: Iterable[str] = (),
        unknown: Iterable[str] = (),
        not_attempted: Iterable[str] = (),
        outcome: Outcome | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.platform_code = platform_code
        self.msg = msg
        self.http_status = http_status
        self.log_id = log_id
        self.retryable = retryable
        self.retry_after = retry_after
        self.attempts = attempts
        self.call = call
        # Without these types pyright widens the literals to str.
        self.station: Station | None = station
        self.reason: ConnectionReason | None = reason
        self.hint = hint
        self.permission_violations = tuple(permission_violations)
        self.field_violations = tuple(field_violations)
        self.reached = tuple(reached)
        self.failed = tuple(failed)
        self.unknown = tuple(unknown)
        self.not_attempted = tuple(not_attempted)
        self.outcome = outcome

    def _known(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FACTS if getattr(self, name) not in (None, (), 0)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: all that is known, with the causes' texts.

        The platform's `msg` is `platform_msg`: loggers have a key of that name.

        Example:
            >>> RateLimitedError("wait", retry_after=1.5).to_dict()["retry_after"]
            1.5
        """
        known = {
            "platform_msg" if name == "msg" else name: plain(value) for name, value in self._known().items()
        }
        shown = {
            "type": type(self).__name__,
            "kind": self.kind,
            "message": str(self),
            "retryable": self.retryable,
            "attempts": self.attempts,
            **known,
        }
        causes: list[str] = []
        cause = self.__cause__
        while cause is not None and len(causes) < _MOST_CAUSES:
            causes.append(str(cause) or type(cause).__name__)
            cause = cause.__cause__
        return {**shown, "causes": causes} if causes else shown

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __repr__(self) -> str:
        shown = "".join([f", {name}={value!r}" for name, value in self._known().items()])
        return f"{type(self).__name__}({str(self)!r}{shown})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.args == other.args and self._known() == other._known()

    def __hash__(self) -> int:
        return hash((type(self), self.args))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), str(self), self._known()), {**self.__dict__}


_FACTS = (
    "field",
    "platform_code",
    "msg",
    "http_status",
    "log_id",
    "retryable",
    "retry_after",
    "attempts",
    "call",
    "station",
    "reason",
    "hint",
    "permission_violations",
    "field_violations",
    "reached",
    "failed",
    "unknown",
    "not_attempted",
    "outcome",
)


def _unpickled(cls: type[FeedCardError], message: str, known: dict[str, Any]) -> FeedCardError:
    return cls(message, **known)


class InvalidInputError(FeedCardError, ValueError):
    """An argument or option is wrong; nothing was sent. `field` names it."""

    kind = "INVALID_INPUT"


class AuthenticationError(FeedCardError):
    """Wrong app, secret, ticket or token, after the one replay with a new token."""

    kind = "AUTHENTICATION"


class PermissionDeniedError(FeedCardError):
    """A scope is missing, the bot is not in the chat, the IP is not allowed, the app is disabled."""

    kind = "PERMISSION_DENIED"


class RejectedError(FeedCardError):
    """The platform refused the parameters."""

    kind = "REJECTED"


class RateLimitedError(FeedCardError):
    """No slot of the quota before the deadline, or the replays are used up. See `retry_after`."""

    kind = "RATE_LIMITED"


class QuotaExhaustedError(FeedCardError):
    """The month's quota of the tenant is used up."""

    kind = "QUOTA_EXHAUSTED"


class ServerError(FeedCardError):
    """A 5xx or an internal code of the platform, and the replays are used up."""

    kind = "SERVER"


class UnexpectedResponseError(FeedCardError):
    """The answer could not be read: HTML, broken JSON, no code."""

    kind = "UNEXPECTED_RESPONSE"


class ConnectionFailedError(FeedCardError, ConnectionError):
    """DNS, TCP, TLS or proxy failed, or the connection broke; `reason` says which."""

    kind = "CONNECTION"


class DeadlineExceededError(FeedCardError, TimeoutError):
    """The call's deadline passed; `station` says where."""

    kind = "TIMEOUT"


class ClientClosedError(FeedCardError):
    """The client was closed before the call, or while it was in progress."""

    kind = "CLIENT_CLOSED"


class PartialFailureError(FeedCardError):
    """Some users were not reached; only from `Outcome.raise_for_failed`."""

    kind = "PARTIAL_FAILURE"


CLASSES: dict[str, type[FeedCardError]] = {
    cls.kind: cls
    for cls in (
        InvalidInputError,
        AuthenticationError,
        PermissionDeniedError,
        RejectedError,
        RateLimitedError,
        QuotaExhaustedError,
        ServerError,
        UnexpectedResponseError,
        ConnectionFailedError,
        DeadlineExceededError,
        ClientClosedError,
        PartialFailureError,
    )
}

for _class in (FeedCardError, *CLASSES.values()):
    _class.__module__ = "feishu_feed_card"
