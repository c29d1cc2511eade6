"""Types for annotations. Nothing of the package imports this at run time: it loads `typing`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar, Union

from feishu_feed_card._native import Quota

if not TYPE_CHECKING:
    # For those who ask for hints at run time.
    try:
        from typing import Self, Unpack
    except ImportError:  # Python 3.10
        Self = TypeVar("Self")

        class Unpack:
            """What it is given."""

            def __class_getitem__(cls, options: object) -> object:
                return options


UserIdType: TypeAlias = Literal["open_id", "union_id", "user_id"]
"""Which kind of id the user ids are."""

Station: TypeAlias = Literal["order", "quota", "token", "connect", "send", "answer"]
"""Where on its way a call failed."""

ConnectionReason: TypeAlias = Literal[
    "dns",
    "refused",
    "unreachable",
    "timeout",
    "tls_untrusted",
    "tls_expired",
    "tls_name",
    "tls",
    "proxy",
    "proxy_auth",
    "closed",
]
"""Why there is no connection, or why it broke."""


class _SequenceNotStr(Protocol):
    """A sequence of strings that is not itself a string: whose `in` takes any object."""

    def __contains__(self, value: object, /) -> bool: ...
    def __getitem__(self, index: int, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def index(self, value: str, start: int = 0, stop: int = ..., /) -> int: ...


UserIds: TypeAlias = Union[_SequenceNotStr, AbstractSet[str], Iterator[str]]  # noqa: UP007 -- evaluated on 3.10
"""User ids: a list, a tuple, a set, a generator; not a single string."""

Token: TypeAlias = Union[str, "tuple[str, float | None]"]
"""What a token provider returns: a token, or a token and the seconds it is good for."""

TokenProvider: TypeAlias = Union[  # noqa: UP007
    Callable[[], Union[Token, Awaitable[Token]]],  # noqa: UP007
    Callable[["str | None"], Union[Token, Awaitable[Token]]],  # noqa: UP007
]
"""Supplies the tokens instead of an app's id and secret: a function without required parameters, or with one.
That gets the token that the platform refused, or None if a token is needed for another reason."""


class _Request(TypedDict):
    feed_card_id: str
    user_ids: UserIds
    time_sensitive: bool


class Request(_Request, total=False):
    """One call for `set_time_sensitive_many`: the parameters of `set_time_sensitive` by their names.

    `tag` is any value of the caller's: it is not sent, and is returned as the item's `tag`.
    """

    user_id_type: UserIdType
    timeout: float | None
    tag: Any


class ClientOptions(TypedDict, total=False):
    """The options of `Client` and `AsyncClient`, for those who pass them on."""

    app_id: str | None
    app_secret: str | None
    tenant_access_token: str | None
    token_provider: TokenProvider | None
    tenant_key: str | None
    app_ticket: str | None
    base_url: str | None
    allow_http: bool
    proxy: str | Literal[False] | None
    ca_certs: str | os.PathLike[str] | None
    user_agent: str | None
    timeout: float | None
    connect_timeout: float | None
    attempt_timeout: float | None
    max_retries: int | None
    rate_limit: tuple[int, int] | None
    quota: Quota | None
    late_arrival: float | None
    max_users_per_request: int | None
