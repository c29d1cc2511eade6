"""Types for annotations. The client does not import this module at run time, because it imports `typing`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar, Union

from feishu_feed_card._native import Quota

if not TYPE_CHECKING:
    # For `typing.get_type_hints`.
    try:
        from typing import Self, Unpack
    except ImportError:  # Python 3.10
        Self = TypeVar("Self")

        class Unpack:
            """Stands for its argument."""

            def __class_getitem__(cls, options: object) -> object:
                return options


UserIdType: TypeAlias = Literal["open_id", "union_id", "user_id"]
"""The type of user ids."""

Station: TypeAlias = Literal["order", "quota", "token", "connect", "send", "answer"]
"""The step at which a call failed."""

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
"""Why a connection could not be made, or why it broke."""


class _SequenceNotStr(Protocol):
    """A sequence of strings. Excludes str itself, because the `in` of a str takes only strings."""

    def __contains__(self, value: object, /) -> bool: ...
    def __getitem__(self, index: int, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def index(self, value: str, start: int = 0, stop: int = ..., /) -> int: ...


UserIds: TypeAlias = Union[_SequenceNotStr, AbstractSet[str], Iterator[str]]  # noqa: UP007 -- evaluated on 3.10
"""User ids: a list, tuple, set or generator of strings, but not a single string."""

Token: TypeAlias = Union[str, "tuple[str, float | None]"]
"""A token provider's result: a token, or a tuple of a token and its remaining lifetime in seconds."""


class _ProviderOfRefused(Protocol):
    def __call__(self, *, refused_token: str | None) -> Token | Awaitable[Token]: ...


TokenProvider: TypeAlias = Union[  # noqa: UP007
    Callable[[], Union[Token, Awaitable[Token]]],  # noqa: UP007
    _ProviderOfRefused,
]
"""A function that supplies tokens, in place of an app id and secret. If it has a parameter `refused_token`,
it receives the token that the platform refused, or None if a token is needed for another reason."""


class _Request(TypedDict):
    feed_card_id: str
    user_ids: UserIds
    time_sensitive: bool


class Request(_Request, total=False):
    """One request for `set_time_sensitive_many`, with the parameters of `set_time_sensitive` as keys.

    `tag` is any value. It is not sent, but returned as the item's `tag`.
    """

    user_id_type: UserIdType
    timeout: float | None
    tag: Any


class ClientOptions(TypedDict, total=False):
    """The options of `Client` and `AsyncClient`, for functions that pass them on."""

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
