"""即时提醒, the time-sensitive feed card of the Feishu/Lark Open Platform.

Pins a group chat to the top of chosen people's message lists until it is unpinned.

Example:
    >>> from feishu_feed_card import Client
    >>> with Client("cli_…", "the app's secret") as client:  # doctest: +SKIP
    ...     outcome = client.set_time_sensitive("oc_…", ["ou_…"], True)
    ...     outcome.raise_for_failed()
"""

from __future__ import annotations

from feishu_feed_card._client import AsyncClient, Client
from feishu_feed_card._errors import (
    AuthenticationError,
    ConnectionFailedError,
    DeadlineExceededError,
    FeedCardError,
    FieldViolation,
    InvalidInputError,
    PartialFailureError,
    PermissionDeniedError,
    PermissionViolation,
    QuotaExhaustedError,
    RateLimitedError,
    RejectedError,
    ServerError,
    UnexpectedResponseError,
)
from feishu_feed_card._native import Quota, __version__
from feishu_feed_card._outcome import FailedUserReason, Outcome

# Types for annotations cost an import of `typing`: they are made when asked for.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from feishu_feed_card._types import ClientOptions, UserIds, UserIdType

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "ClientOptions",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "FailedUserReason",
    "FeedCardError",
    "FieldViolation",
    "InvalidInputError",
    "Outcome",
    "PartialFailureError",
    "PermissionDeniedError",
    "PermissionViolation",
    "Quota",
    "QuotaExhaustedError",
    "RateLimitedError",
    "RejectedError",
    "ServerError",
    "UnexpectedResponseError",
    "UserIdType",
    "UserIds",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in ("ClientOptions", "UserIdType", "UserIds"):
        from feishu_feed_card import _types

        return getattr(_types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
