"""The extension module. Only the package itself uses it, but for `Quota`."""

from asyncio import Future
from collections.abc import Mapping
from typing import final

from feishu_feed_card._outcome import Outcome

__all__ = [
    "ERROR_KINDS",
    "PLATFORM_RATE_LIMIT",
    "Answer",
    "Call",
    "Calls",
    "Client",
    "Quota",
    "Sandbox",
    "__version__",
    "example_world",
    "invalid_input",
    "raise_for_failed",
]

__version__: str
ERROR_KINDS: tuple[str, ...]
PLATFORM_RATE_LIMIT: tuple[int, int]

@final
class Quota:
    """The quota of a client, to share it with other clients of the same app."""

@final
class Client:
    def __new__(cls, options: Mapping[str, object], from_env: bool, is_async: bool) -> Client: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def quota(self) -> Quota | None: ...
    def call(
        self,
        is_bot: bool,
        feed_card_id: object,
        user_ids: object,
        time_sensitive: object,
        user_id_type: object,
        timeout: object,
    ) -> Outcome: ...
    def start(
        self,
        is_bot: bool,
        feed_card_id: object,
        user_ids: object,
        time_sensitive: object,
        user_id_type: object,
        timeout: object,
    ) -> tuple[Future[Outcome], Call]: ...
    def set_app_ticket(self, app_ticket: object) -> None: ...
    def close(self) -> None: ...

@final
class Call:
    def cancel(self) -> None: ...

@final
class Calls:
    def hear(self) -> bool: ...
    def settle(self) -> None: ...

@final
class Answer:
    def give(self, token: object) -> None: ...
    def fail(self, exception: BaseException) -> None: ...
    def abandon(self) -> None: ...

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
def invalid_input(field: str, value: str, expected: str) -> Exception: ...
def raise_for_failed(outcome: Outcome) -> None: ...
