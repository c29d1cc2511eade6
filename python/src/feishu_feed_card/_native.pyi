"""The extension module. Private: import its public classes from `feishu_feed_card`."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, final

from typing_extensions import Self

from feishu_feed_card._errors import FeedCardError
from feishu_feed_card._types import Request

__all__ = [
    "BOT",
    "CLIENT_OPTIONS",
    "ERROR_KINDS",
    "PLATFORM_RATE_LIMIT",
    "CallHandle",
    "Calls",
    "Client",
    "FailedUserReason",
    "FieldViolation",
    "Item",
    "Many",
    "Outcome",
    "PermissionViolation",
    "Progress",
    "ProviderResult",
    "QueueReader",
    "Quota",
    "Report",
    "Sandbox",
    "Unfinished",
    "WakeUp",
    "__version__",
    "example_world",
    "flush_logs",
    "invalid_input",
    "plain",
    "running_loop",
]

__version__: str
CLIENT_OPTIONS: list[str]
ERROR_KINDS: tuple[str, ...]
PLATFORM_RATE_LIMIT: tuple[int, int]
# Passed to `Client.call` and `Client.start` in place of a group chat's id, for the bot's own chat.
BOT: object

@final
class Quota:
    """A client's quota, to be shared with other clients of the same app."""

@final
class FailedUserReason:
    """A user that a call did not reach."""

    __match_args__: Final = ("error_code", "error_message", "user_id")
    def __new__(cls, error_code: int = ..., error_message: str = ..., user_id: str | None = ...) -> Self: ...
    error_code: Final[int]
    error_message: Final[str]
    user_id: Final[str | None]
    def to_dict(self) -> dict[str, Any]: ...

@final
class Outcome:
    """The result of a call. It may include users that were not reached: see `ok` and `raise_for_failed`."""

    __match_args__: Final = (
        "failed_user_reasons",
        "log_ids",
        "requests",
        "reached",
        "failed",
        "unknown",
        "not_attempted",
        "call",
    )
    def __new__(
        cls,
        failed_user_reasons: Iterable[FailedUserReason] = ...,
        log_ids: Iterable[str] = ...,
        requests: int = ...,
        reached: Iterable[str] = ...,
        failed: Iterable[str] = ...,
        unknown: Iterable[str] = ...,
        not_attempted: Iterable[str] = ...,
        call: int | None = ...,
    ) -> Self: ...
    failed_user_reasons: Final[tuple[FailedUserReason, ...]]
    log_ids: Final[tuple[str, ...]]
    requests: Final[int]
    reached: Final[tuple[str, ...]]
    failed: Final[tuple[str, ...]]
    unknown: Final[tuple[str, ...]]
    not_attempted: Final[tuple[str, ...]]
    call: Final[int | None]
    @property
    def ok(self) -> bool: ...
    @property
    def log_id(self) -> str | None: ...
    def raise_for_failed(self) -> Self: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class PermissionViolation:
    """A missing permission, as reported by the platform."""

    __match_args__: Final = ("type", "subject")
    def __new__(
        cls,
        type: str = ...,  # noqa: A002 -- the platform's name
        subject: str = ...,
    ) -> Self: ...
    type: Final[str]
    subject: Final[str]
    def to_dict(self) -> dict[str, Any]: ...

@final
class FieldViolation:
    """A field of the request that the platform refused."""

    __match_args__: Final = ("field", "value", "description")
    def __new__(cls, field: str = ..., value: str = ..., description: str = ...) -> Self: ...
    field: Final[str]
    value: Final[str]
    description: Final[str]
    def to_dict(self) -> dict[str, Any]: ...

@final
class Item:
    """The result of one of many requests. Either `outcome` or `error` is set."""

    __match_args__: Final = ("index", "request", "outcome", "error", "tag")
    def __new__(
        cls,
        index: int,
        request: Request,
        outcome: Outcome | None = ...,
        error: FeedCardError | None = ...,
        tag: Any = ...,
    ) -> Self: ...
    index: Final[int]
    request: Final[Request]
    outcome: Final[Outcome | None]
    error: Final[FeedCardError | None]
    tag: Final[Any]
    def to_dict(self) -> dict[str, Any]: ...

@final
class Progress:
    """The progress of many calls."""

    __match_args__: Final = ("done", "total", "failed", "waiting_for_quota", "eta")
    def __new__(
        cls, done: int, total: int | None, failed: int, waiting_for_quota: int, eta: float | None
    ) -> Self: ...
    done: Final[int]
    total: Final[int | None]
    failed: Final[int]
    waiting_for_quota: Final[int]
    eta: Final[float | None]
    def to_dict(self) -> dict[str, Any]: ...

@final
class Unfinished:
    """A request that was stopped before it finished. Each of its user ids is in one of the four lists."""

    __match_args__: Final = ("index", "request", "reached", "failed", "unknown", "not_attempted", "tag")
    def __new__(
        cls,
        index: int,
        request: Request,
        reached: Iterable[str] = ...,
        failed: Iterable[str] = ...,
        unknown: Iterable[str] = ...,
        not_attempted: Iterable[str] = ...,
        tag: Any = ...,
    ) -> Self: ...
    index: Final[int]
    request: Final[Request]
    reached: Final[tuple[str, ...]]
    failed: Final[tuple[str, ...]]
    unknown: Final[tuple[str, ...]]
    not_attempted: Final[tuple[str, ...]]
    tag: Final[Any]
    def to_dict(self) -> dict[str, Any]: ...

@final
class Report:
    """The final results of many calls, including those stopped early."""

    __match_args__: Final = ("taken", "succeeded", "failed", "unread", "unfinished", "failures", "not_read")
    def __new__(
        cls,
        taken: int,
        succeeded: int,
        failed: int,
        unread: Iterable[Item] = ...,
        unfinished: Iterable[Unfinished] = ...,
        failures: Iterable[Item] = ...,
        not_read: int | None = ...,
    ) -> Self: ...
    taken: Final[int]
    succeeded: Final[int]
    failed: Final[int]
    unread: Final[tuple[Item, ...]]
    unfinished: Final[tuple[Unfinished, ...]]
    failures: Final[tuple[Item, ...]]
    not_read: Final[int | None]
    def to_dict(self) -> dict[str, Any]: ...

@final
class Client:
    def __new__(
        cls,
        errors: Mapping[str, type[FeedCardError]],
        options: Mapping[str, object],
        from_env: bool,
        is_async: bool,
    ) -> Client: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def quota(self) -> Quota | None: ...
    def call(
        self,
        target: object,
        user_ids: object,
        time_sensitive: object,
        user_id_type: object,
        timeout: object,
        on_event: object,
    ) -> Outcome: ...
    def start(
        self,
        target: object,
        user_ids: object,
        time_sensitive: object,
        user_id_type: object,
        timeout: object,
        on_event: object,
    ) -> tuple[Future[Outcome], CallHandle]: ...
    def many(
        self,
        requests: object,
        concurrency: object,
        total_timeout: object,
        progress: object,
        on_event: object,
    ) -> tuple[Many, Iterator[Request] | None]: ...
    def set_app_ticket(self, app_ticket: object) -> None: ...
    def close(self, timeout: object) -> None: ...
    def start_close(self, timeout: object) -> tuple[Future[None], CallHandle] | None: ...

@final
class CallHandle:
    def cancel(self) -> None: ...

@final
class Calls: ...

@final
class WakeUp:
    def __call__(self, *args: object, **kwargs: object) -> None: ...

@final
class Many:
    def next_batch(self, iterator: Iterator[Request], batch: list[Item]) -> bool: ...
    def read(self, iterator: Iterator[Request]) -> bool: ...
    def may_read(self) -> bool: ...
    def is_reading(self) -> bool: ...
    def push(self, request: object) -> bool: ...
    def end_reading(self) -> None: ...
    def fail(self, exception: BaseException) -> None: ...
    def take(self, batch: list[Item]) -> bool: ...
    def take_error(self) -> FeedCardError | None: ...
    def ready(self) -> tuple[Future[None], CallHandle] | None: ...
    def ended(self) -> tuple[Future[None], CallHandle] | None: ...
    def stop(self) -> None: ...
    def leave(self) -> None: ...
    def report(
        self,
    ) -> tuple[int, int, int, list[Item], list[Unfinished], list[Item], int | None]: ...
    def check_process(self) -> None: ...
    def progress(self) -> tuple[int, int | None, int, int, float | None]: ...
    def new_progress(self) -> tuple[int, int | None, int, int, float | None] | None: ...

@final
class ProviderResult:
    def set_token(self, token: object) -> None: ...
    def set_exception(self, exception: BaseException) -> None: ...
    def set_no_thread(self, why: str) -> None: ...
    def abandon(self) -> None: ...

@final
class QueueReader:
    def next_call(self) -> tuple[Callable[..., object], list[str | None], ProviderResult] | None: ...

@final
class Sandbox:
    def __new__(cls, world: str, https: bool, port: int, https_port: int) -> Sandbox: ...
    @property
    def base_url(self) -> str: ...
    @property
    def https_base_url(self) -> str | None: ...
    @property
    def ca_pem(self) -> str | None: ...
    def control(self, control: str) -> str: ...
    def close(self) -> None: ...

def example_world() -> str: ...
def flush_logs() -> None: ...
def invalid_input(
    errors: Mapping[str, type[FeedCardError]],
    field: str,
    value: str,
    expected: str,
    user_ids: object = None,
) -> Exception: ...
def plain(value: object) -> Any: ...
def running_loop() -> AbstractEventLoop: ...
