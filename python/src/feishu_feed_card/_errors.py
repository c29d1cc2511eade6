"""Exceptions: one class for each kind of error."""

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
"""Maximum number of causes in `to_dict`. The chain may be endless: an exception can be its own cause."""


class FeedCardError(Exception):
    """Base class of all errors of this package.

    `str()` returns a message that says what happened, at which step, and what to do.

    Attributes:
        kind: The kind's name, such as "RATE_LIMITED". It is the same in Rust, Python and JavaScript.
        field: The invalid argument or option, such as "user_ids[3]".
        platform_code: The platform's error code.
        msg: The platform's error message. The platform changes its messages: show them, but do not branch on
            them.
        http_status: The HTTP status of the last response.
        log_id: The platform's log id of the last response, for the platform's support.
        retryable: Whether the same call may succeed later without a change.
        retry_after: How many seconds to wait before the next try, if known.
        attempts: How many times the request was sent.
        call: The call's number, unique in this process. Log records have the same number as `call`. None if
            the input was invalid.
        station: The step at which the call failed: "order", "quota", "token", "connect", "send" or "answer".
        reason: Why the connection failed: "dns", "refused", "unreachable", "timeout", "tls_untrusted",
            "tls_expired", "tls_name", "tls", "proxy", "proxy_auth" or "closed". Set only on a
            ConnectionFailedError. None if the connection itself was not the cause, for example if the process
            had no free file descriptor.
        hint: What to do, in one sentence.
        permission_violations: The missing permissions, as reported by the platform.
        field_violations: The fields that the platform refused.
        reached: User ids for which the platform accepted the new state, in other requests of a split call.
        failed: User ids that the platform refused.
        unknown: User ids that may have been sent and whose result is not known.
        not_attempted: User ids that were never sent.
        outcome: The combined outcome of the requests that succeeded, if the call was split. On a
            PartialFailureError, the outcome that raised it.

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
        """Returns the error as plain data for JSON, including the texts of its causes.

        Attributes without a value are left out. `msg` is named `platform_msg`, because loggers use the key
        `msg` themselves.

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
    """An argument or option is invalid; `field` names it. Nothing was sent."""

    kind = "INVALID_INPUT"


class AuthenticationError(FeedCardError):
    """The platform refused the app id, secret, ticket or token, also after a retry with a new token."""

    kind = "AUTHENTICATION"


class PermissionDeniedError(FeedCardError):
    """The app lacks a permission: a missing scope, a bot outside the chat, a blocked IP, a disabled app."""

    kind = "PERMISSION_DENIED"


class RejectedError(FeedCardError):
    """The platform refused the parameters."""

    kind = "REJECTED"


class RateLimitedError(FeedCardError):
    """No slot of the quota became free before the deadline, or all retries were rate-limited.

    `retry_after` says how long to wait, if known.
    """

    kind = "RATE_LIMITED"


class QuotaExhaustedError(FeedCardError):
    """The tenant's monthly quota is used up."""

    kind = "QUOTA_EXHAUSTED"


class ServerError(FeedCardError):
    """The platform answered with a 5xx status or an internal error code, also to every retry."""

    kind = "SERVER"


class UnexpectedResponseError(FeedCardError):
    """The response is not one of the platform's: HTML, invalid JSON, or JSON without a `code`."""

    kind = "UNEXPECTED_RESPONSE"


class ConnectionFailedError(FeedCardError, ConnectionError):
    """The connection could not be made or broke: DNS, TCP, TLS or a proxy. `reason` says why."""

    kind = "CONNECTION"


class DeadlineExceededError(FeedCardError, TimeoutError):
    """The call's deadline passed; `station` says at which step."""

    kind = "TIMEOUT"


class ClientClosedError(FeedCardError):
    """The client was closed before or during the call."""

    kind = "CLIENT_CLOSED"


class PartialFailureError(FeedCardError):
    """Some users were not reached. Raised only by `Outcome.raise_for_failed`."""

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
