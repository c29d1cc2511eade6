"""即时提醒, the time-sensitive feed card of the Feishu/Lark Open Platform.

Pins a group chat to the top of chosen users' message lists until it is unpinned.

Example:
    >>> from feishu_feed_card import Client
    >>> with Client("cli_…", "the app's secret") as client:  # doctest: +SKIP
    ...     outcome = client.set_time_sensitive("oc_…", ["ou_…"], True)
    ...     outcome.raise_for_failed()
"""

from __future__ import annotations

from feishu_feed_card import _logging as _logging
from feishu_feed_card import _native
from feishu_feed_card._client import AsyncClient, Client
from feishu_feed_card._errors import (
    AuthenticationError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    FeedCardError,
    InvalidInputError,
    PartialFailureError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitedError,
    RejectedError,
    ServerError,
    UnexpectedResponseError,
)
from feishu_feed_card._native import (
    FailedUserReason,
    FieldViolation,
    Item,
    Outcome,
    PermissionViolation,
    Progress,
    Quota,
    Report,
    Unfinished,
    __version__,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from feishu_feed_card._many import AsyncMany, Many
    from feishu_feed_card._types import ClientOptions, ConnectionReason, Request, UserIds, UserIdType

# Names that most programs do not use. Their modules are imported on first use.
_LATE = {
    **dict.fromkeys(("ClientOptions", "ConnectionReason", "Request", "UserIdType", "UserIds"), "_types"),
    **dict.fromkeys(("AsyncMany", "Many"), "_many"),
}

__all__ = [
    "AsyncClient",
    "AsyncMany",
    "AuthenticationError",
    "Client",
    "ClientClosedError",
    "ClientOptions",
    "ConnectionFailedError",
    "ConnectionReason",
    "DeadlineExceededError",
    "FailedUserReason",
    "FeedCardError",
    "FieldViolation",
    "InvalidInputError",
    "Item",
    "Many",
    "Outcome",
    "PartialFailureError",
    "PermissionDeniedError",
    "PermissionViolation",
    "Progress",
    "Quota",
    "QuotaExhaustedError",
    "RateLimitedError",
    "RejectedError",
    "Report",
    "Request",
    "ServerError",
    "UnexpectedResponseError",
    "Unfinished",
    "UserIdType",
    "UserIds",
    "__version__",
    "flush",
]


def flush() -> None:
    """Passes waiting log records to the handlers of `logging`.

    The records of a call are handled before the call returns. The records of `set_time_sensitive_many` are
    handled while the program waits for results or takes them, and when it asks for the report. Records
    without a call in progress, such as those of a token renewal that goes on after its call, wait until the
    next call, until this function is called, or until the interpreter exits.
    """
    _native.flush_logs()


def __getattr__(name: str) -> object:
    if name in _LATE:
        module = __import__(f"{__name__}.{_LATE[name]}", fromlist=[name])
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _imported_by_native() -> None:
    """Lists the extension module's imports for bundlers such as PyInstaller. Never called."""
    import asyncio  # noqa: F401
    import atexit  # noqa: F401
    import contextvars  # noqa: F401
    import functools  # noqa: F401
    import os  # noqa: F401
    import sys  # noqa: F401

    from feishu_feed_card import _errors, _provider  # noqa: F401
