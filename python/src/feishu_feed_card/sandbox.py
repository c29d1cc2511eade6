"""A local stand-in for the platform, to try a client and to test a bot.

A small, strict model of the platform runs in this process, behind HTTP on a loopback port. It has apps with
secrets, tokens that expire, chats with members and frequency limits, and answers every wrong request as the
platform's documentation says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from feishu_feed_card._client import AsyncClient, Client
from feishu_feed_card._native import Sandbox as _Platform
from feishu_feed_card._native import example_world
from feishu_feed_card._types import ClientOptions

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack
else:
    from feishu_feed_card._types import Self, Unpack

__all__ = [
    "App",
    "Chat",
    "Fault",
    "Interface",
    "RecordedRequest",
    "Sandbox",
    "State",
    "Switches",
    "User",
    "World",
]

Interface = Literal["group", "bot"]
"""One of the platform's two interfaces: "group" for group chats, "bot" for the bot's own chat."""


class _App(TypedDict):
    app_id: str
    app_secret: str


class App(_App, total=False):
    """An app. The defaults of missing fields describe a working self-built app."""

    kind: Literal["self_built", "store"]
    tenant_key: str
    scopes: list[str]
    user_id_permission: bool
    enabled: bool
    installed: bool
    bot_enabled: bool
    ip_allowed: bool
    monthly_quota: int | None


class _User(TypedDict):
    open_id: str


class User(_User, total=False):
    """A user with all three types of ids. Missing ids are derived from the open id."""

    union_id: str | None
    user_id: str | None


class _Chat(TypedDict):
    feed_card_id: str


class Chat(_Chat, total=False):
    """A group chat: its members' open ids, whether the bot is a member, whether the chat is dissolved."""

    members: list[str]
    bot_in_chat: bool
    dissolved: bool


class Switches(TypedDict, total=False):
    """The platform's behaviour where its documentation leaves it open. Defaults are the likeliest values."""

    token_error_status: int
    wrong_secret_code: int
    success_msg: str
    success_shape: Literal["empty_list", "null_list", "empty_data", "null_data", "no_data"]
    per_second: int | None
    per_minute: int | None
    refused_fill_windows: bool
    rate_limit_status: int
    unknown_ids: Literal["listed", "cross_app", "invalid"]
    field_permission_for_every_id_type: bool
    group_max_users: int | None
    list_length_code: int
    unknown_chat_code: int
    dissolved_chat_code: int
    bot_not_in_chat_code: int
    token_life_s: int
    token_reuse_s: int
    path_prefix: str
    keep_requests: int
    keep_arrivals: int


class World(TypedDict, total=False):
    """The initial state of a sandbox. A missing part is that of the example world."""

    apps: list[App]
    users: list[User]
    chats: list[Chat]
    switches: Switches
    seed: int | None


class Fault(TypedDict, total=False):
    """One step of the fault script: the faults of the next `times` requests of the kind `on`.

    The fields can be combined. They apply to a request in this order: `refuse`, `late_ms`, `delay_before_ms`,
    `reset` "before", a scripted answer (`code`, `status`, `html`, `body`), `revoke_tokens`, the platform
    itself, `delay_after_ms`, `reset` "after", and changes of the answer (`headers`, `expire`, `big_body`,
    `no_content_length`, `truncate`).
    """

    on: Literal["any", "call", "token"]
    times: int
    delay_before_ms: int
    delay_after_ms: int
    detached: bool
    late_ms: int | None
    refuse: bool
    reset: Literal["before", "after"] | None
    status: int | None
    headers: dict[str, str]
    body: str | None
    code: int | None
    msg: str | None
    html: bool
    after: bool
    truncate: int | None
    revoke_tokens: bool
    big_body: int | None
    no_content_length: bool
    expire: object


class RecordedRequest(TypedDict):
    """One request that the sandbox received. Times are in milliseconds since the sandbox's start."""

    number: int
    connection: int
    received_ms: float
    arrived_ms: float | None
    method: str
    path: str
    query: str | None
    headers: dict[str, str]
    authorization: str | None
    token: int | None
    body: Any
    status: int | None
    code: int | None
    fault: bool


class State(TypedDict):
    """The state of a sandbox. `pinned` has open ids by chat, `bot_pinned` has open ids by app."""

    now_ms: float
    request_count: int
    token_fetches: int
    over_limit: int
    """How many calls the sandbox's frequency limits refused. Refusals of the fault script do not count."""
    faults_left: int
    pinned: dict[str, list[str]]
    bot_pinned: dict[str, list[str]]


class Sandbox:
    """A local stand-in for the platform. It listens from its creation until it is closed.

    Args:
        world: The initial state. Missing parts (`apps`, `users`, `chats`) are those of the example world, and
            `switches` override the defaults. Default: the example world.
        https: Whether to serve https too, with a new certificate: see `ca_pem`.
        port: The port for http. 0 selects a free port.
        https_port: The port for https. 0 selects a free port.

    Attributes:
        APP_ID: The app id of the example world's self-built app.
        APP_SECRET: The secret of both apps of the example world.
        STORE_APP_ID: The app id of the example world's store app.
        TENANT_KEY: The tenant that has installed the store app.
        CHAT: The example group chat, with the id from the platform's documentation.
        USER: A member of the example group chat, with the id from the platform's documentation.
        OUTSIDER: A user outside the example group chat, with the id from the platform's documentation.

    Raises:
        ValueError: The world has an unknown field or a value of a wrong type.
        OSError: The port is in use.

    Example:
        >>> with Sandbox() as sandbox, sandbox.client() as client:
        ...     outcome = client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
        ...     sandbox.pinned(sandbox.USER) == [sandbox.CHAT]
        True
    """

    APP_ID = "cli_example"
    APP_SECRET = "example-secret"
    STORE_APP_ID = "cli_example_store"
    TENANT_KEY = "tenant_example"
    CHAT = "oc_679eaeb583654bff73fefcc6e6371370"
    USER = "ou_9d2beb613c85a2412862a49a924558c5"
    OUTSIDER = "ou_679eaeb583654bff73fefcc6e6371301"

    def __init__(
        self,
        world: World | None = None,
        *,
        https: bool = False,
        port: int = 0,
        https_port: int = 0,
    ) -> None:
        completed = {**self.example_world(), **(world or {})}
        self._platform = _Platform(json.dumps(completed), https, port, https_port)

    @staticmethod
    def example_world() -> World:
        """Returns the default initial state, to be modified and passed as `world`."""
        world: World = json.loads(example_world())
        return world

    @property
    def base_url(self) -> str:
        """The http URL of the sandbox: "http://127.0.0.1:…"."""
        return self._platform.base_url

    @property
    def https_base_url(self) -> str | None:
        """The https URL of the sandbox: "https://127.0.0.1:…". None without the option `https`."""
        return self._platform.https_base_url

    @property
    def ca_pem(self) -> str | None:
        """The certificate for https as PEM, or None. Write it to a file for a client's `ca_certs`."""
        return self._platform.ca_pem

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """Returns a client of the example world's self-built app. Options override its own."""
        return Client(**self._options(options))

    def async_client(self, **options: Unpack[ClientOptions]) -> AsyncClient:
        """Returns an async client of the example world's self-built app. Options override its own."""
        return AsyncClient(**self._options(options))

    def control(self, do: str, **arguments: object) -> Any:
        """Runs a control by its name. The methods below are the same controls with types.

        Raises:
            ValueError: The name is unknown, or an argument is wrong.
            RuntimeError: The sandbox is closed, or was created in the parent of this forked process.
        """
        return json.loads(self._platform.control(json.dumps({"do": do, **arguments})))

    def pinned(self, open_id: str) -> list[str]:
        """Returns the chats that are pinned for this user."""
        return self._strings("pinned", open_id=open_id)

    def pinned_users(self, feed_card_id: str) -> list[str]:
        """Returns the open ids of the users for whom this chat is pinned."""
        return self._strings("pinned_users", feed_card_id=feed_card_id)

    def bot_pinned(self, open_id: str) -> list[str]:
        """Returns the app ids of the bots whose chat is pinned for this user."""
        return self._strings("bot_pinned", open_id=open_id)

    def bot_pinned_users(self, app_id: str) -> list[str]:
        """Returns the open ids of the users for whom the chat of this app's bot is pinned."""
        return self._strings("bot_pinned_users", app_id=app_id)

    def state(self) -> State:
        """Returns the counters, the clock, and all pinned chats."""
        state: State = self.control("state")
        return state

    def requests(self) -> list[RecordedRequest]:
        """Returns the received requests, the oldest first, including token requests."""
        requests: list[RecordedRequest] = self.control("requests")
        return requests

    def request_count(self) -> int:
        """Returns the number of received requests."""
        return int(self.control("request_count"))

    def token_fetches(self) -> int:
        """Returns the number of requests for a tenant token."""
        return int(self.control("token_fetches"))

    def max_in_window(self, interface: Interface, seconds: float) -> int:
        """Returns the largest number of calls that arrived within any window of this length."""
        return int(self.control("max_in_window", interface=interface, ms=round(seconds * 1000)))

    def clear_record(self) -> None:
        """Deletes the recorded requests and resets the counters. Pinned chats stay."""
        self.control("clear_record")

    def now(self) -> float:
        """Returns the sandbox's time: seconds since its start, plus the time added by `advance`."""
        return float(self.control("now")) / 1000

    def advance(self, seconds: float) -> None:
        """Advances the sandbox's clock, so that tokens expire and frequency limits recover."""
        self.control("advance", ms=round(seconds * 1000))

    def revoke_tokens(self) -> None:
        """Invalidates all tokens."""
        self.control("revoke_tokens")

    def app_ticket(self, app_id: str) -> str | None:
        """Returns a store app's ticket, or None for an unknown app."""
        ticket: str | None = self.control("app_ticket", app_id=app_id)
        return ticket

    def rotate_app_ticket(self, app_id: str) -> str | None:
        """Replaces a store app's ticket. Returns the new one, or None for an unknown app."""
        ticket: str | None = self.control("rotate_app_ticket", app_id=app_id)
        return ticket

    def faults(self, faults: Iterable[Fault]) -> None:
        """Appends steps to the fault script.

        Example:
            >>> with Sandbox() as sandbox, sandbox.client() as client:
            ...     sandbox.faults([{"on": "call", "status": 502, "html": True}])
            ...     client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).requests
            2
        """
        self.control("faults", faults=list(faults))

    def clear_faults(self) -> None:
        """Deletes the remaining steps of the fault script."""
        self.control("clear_faults")

    def faults_left(self) -> int:
        """Returns the number of remaining steps of the fault script."""
        return int(self.control("faults_left"))

    def script(self) -> list[Fault]:
        """Returns the remaining steps of the fault script, each with its remaining `times`."""
        script: list[Fault] = self.control("script")
        return script

    def switches(self) -> Switches:
        """Returns all switches."""
        switches: Switches = self.control("switches")
        return switches

    def set_switches(self, **switches: Unpack[Switches]) -> None:
        """Sets these switches. The others keep their values."""
        self.control("set_switches", switches=switches)

    def put_app(self, app: App) -> None:
        """Adds an app, or replaces the app with this id."""
        self.control("put_app", app=app)

    def put_user(self, user: User) -> None:
        """Adds a user, or replaces the user with this open id."""
        self.control("put_user", user=user)

    def put_chat(self, chat: Chat) -> None:
        """Adds a chat, or replaces the chat with this id."""
        self.control("put_chat", chat=chat)

    def pause_listening(self) -> None:
        """Closes the ports, so that new connections are refused. Open connections stay open."""
        self.control("pause_listening")

    def resume_listening(self) -> None:
        """Opens the same ports again."""
        self.control("resume_listening")

    def close_connections(self) -> None:
        """Closes all open connections, as a server closes idle ones."""
        self.control("close_connections")

    def close(self) -> None:
        """Closes the ports and all connections."""
        self._platform.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<feishu_feed_card.sandbox.Sandbox at {self.base_url}>"

    def _strings(self, do: str, **arguments: object) -> list[str]:
        strings: list[str] = self.control(do, **arguments)
        return strings

    def _options(self, options: Mapping[str, Any]) -> Any:
        own: dict[str, Any] = {"base_url": self.base_url}
        if not {"tenant_access_token", "token_provider"} & options.keys():
            own.update(app_id=self.APP_ID, app_secret=self.APP_SECRET)
        return {**own, **options}
