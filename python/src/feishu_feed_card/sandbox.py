"""A stand-in for the platform, to try a client on and to test a bot with.

It is a small, strict model of the platform in this process, behind HTTP on a loopback port: apps with
secrets, tokens that age, chats with members, frequency limits that bite, and for every wrong request the
answer that the platform documents.
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
"""Which of the two calls."""


class _App(TypedDict):
    app_id: str
    app_secret: str


class App(_App, total=False):
    """An app. What is left out is as a working self-built app has it."""

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
    """A person, under all three kinds of id. What is left out follows from the open id."""

    union_id: str | None
    user_id: str | None


class _Chat(TypedDict):
    feed_card_id: str


class Chat(_Chat, total=False):
    """A group chat: its members' open ids, and whether the bot is in it and it is not dissolved."""

    members: list[str]
    bot_in_chat: bool
    dissolved: bool


class Switches(TypedDict, total=False):
    """How the platform behaves where no public document settles it. Each default is the likeliest."""

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
    """Everything a sandbox knows at its start. A part that is left out is the example's."""

    apps: list[App]
    users: list[User]
    chats: list[Chat]
    switches: Switches
    seed: int | None


class Fault(TypedDict, total=False):
    """One step of the fault script: what goes wrong for the next `times` requests of the kind `on`.

    The fields combine, in the order in which a request meets them: `refuse`, `late_ms`,
    `delay_before_ms`, `reset` "before", an answer of the script's own (`code`, `status`, `html`, `body`),
    `revoke_tokens`, the platform itself, `delay_after_ms`, `reset` "after", and what is done to the answer
    on its way out (`headers`, `expire`, `big_body`, `no_content_length`, `truncate`).
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
    """One request as the sandbox saw it. Times are milliseconds since its start."""

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
    """Everything at one glance: open ids by chat, and by app for its bot."""

    now_ms: float
    request_count: int
    token_fetches: int
    over_limit: int
    """Calls that the platform itself, not the fault script, refused for their frequency."""
    faults_left: int
    pinned: dict[str, list[str]]
    bot_pinned: dict[str, list[str]]


class Sandbox:
    """A stand-in platform. It listens when this returns, and until it is closed.

    Args:
        world: What it holds; a part that is left out (`apps`, `users`, `chats`) is the example's, and
            `switches` change the default ones.
        https: Speaks https too, with a certificate made at the start: see `ca_pem`.
        port: Where it speaks http; 0 takes a free port.
        https_port: Where it speaks https; 0 takes a free port.

    Attributes:
        APP_ID: The example's self-built app.
        APP_SECRET: The secret of both of the example's apps.
        STORE_APP_ID: The example's store app.
        TENANT_KEY: The tenant that has the store app installed.
        CHAT: The example group, the platform page's own.
        USER: A member of the example group, the platform page's own.
        OUTSIDER: A user who is not in the example group, the platform page's own.

    Raises:
        ValueError: The world has a field that does not exist, or one of a wrong type.
        OSError: The port is taken.

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
        whole = {**self.example_world(), **(world or {})}
        self._platform = _Platform(json.dumps(whole), https, port, https_port)

    @staticmethod
    def example_world() -> World:
        """The world that a sandbox holds unless told otherwise, to be changed and handed in."""
        world: World = json.loads(example_world())
        return world

    @property
    def base_url(self) -> str:
        """Where it speaks http: "http://127.0.0.1:…"."""
        return self._platform.base_url

    @property
    def https_base_url(self) -> str | None:
        """Where it speaks https, if that was asked for: "https://127.0.0.1:…"."""
        return self._platform.https_base_url

    @property
    def ca_pem(self) -> str | None:
        """The certificate that a client must trust for https, to be written into a file for `ca_certs`."""
        return self._platform.ca_pem

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """Makes a client of the example's app for this sandbox; the options come before that."""
        return Client(**self._options(options))

    def async_client(self, **options: Unpack[ClientOptions]) -> AsyncClient:
        """Makes an async client of the example's app for this sandbox; the options come before that."""
        return AsyncClient(**self._options(options))

    def control(self, do: str, **arguments: object) -> Any:
        """Carries out any control by its name; the methods below are these, with types.

        Raises:
            ValueError: There is no such control, or its arguments are wrong.
            RuntimeError: The sandbox is closed, or belongs to the process this one was forked from.
        """
        return json.loads(self._platform.control(json.dumps({"do": do, **arguments})))

    def pinned(self, open_id: str) -> list[str]:
        """The chats that this user has pinned now."""
        return self._strings("pinned", open_id=open_id)

    def pinned_users(self, feed_card_id: str) -> list[str]:
        """The open ids of those who have this chat pinned now."""
        return self._strings("pinned_users", feed_card_id=feed_card_id)

    def bot_pinned(self, open_id: str) -> list[str]:
        """The apps whose bot's chat this user has pinned now."""
        return self._strings("bot_pinned", open_id=open_id)

    def bot_pinned_users(self, app_id: str) -> list[str]:
        """The open ids of those who have the chat of this app's bot pinned now."""
        return self._strings("bot_pinned_users", app_id=app_id)

    def state(self) -> State:
        """Everything at one glance."""
        state: State = self.control("state")
        return state

    def requests(self) -> list[RecordedRequest]:
        """The requests it saw, the oldest first; token requests among them."""
        requests: list[RecordedRequest] = self.control("requests")
        return requests

    def request_count(self) -> int:
        """How many requests it saw."""
        return int(self.control("request_count"))

    def token_fetches(self) -> int:
        """How many times a tenant token was asked for."""
        return int(self.control("token_fetches"))

    def max_in_window(self, interface: Interface, seconds: float) -> int:
        """The most calls that ever arrived within a window of this length."""
        return int(self.control("max_in_window", interface=interface, ms=round(seconds * 1000)))

    def clear_record(self) -> None:
        """Forgets the requests, and counts anew. What is pinned stays."""
        self.control("clear_record")

    def now(self) -> float:
        """Its clock: seconds since its start, and what it was moved by."""
        return float(self.control("now")) / 1000

    def advance(self, seconds: float) -> None:
        """Moves its clock: tokens age, windows pass."""
        self.control("advance", ms=round(seconds * 1000))

    def revoke_tokens(self) -> None:
        """Makes every token invalid."""
        self.control("revoke_tokens")

    def app_ticket(self, app_id: str) -> str | None:
        """A store app's ticket; None for an unknown app."""
        ticket: str | None = self.control("app_ticket", app_id=app_id)
        return ticket

    def rotate_app_ticket(self, app_id: str) -> str | None:
        """Makes a store app's ticket invalid; returns the new one."""
        ticket: str | None = self.control("rotate_app_ticket", app_id=app_id)
        return ticket

    def faults(self, faults: Iterable[Fault]) -> None:
        """Adds steps to the fault script.

        Example:
            >>> with Sandbox() as sandbox, sandbox.client() as client:
            ...     sandbox.faults([{"on": "call", "status": 502, "html": True}])
            ...     client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).requests
            2
        """
        self.control("faults", faults=list(faults))

    def clear_faults(self) -> None:
        """Drops what is left of the fault script."""
        self.control("clear_faults")

    def faults_left(self) -> int:
        """How many steps of the fault script have not been taken."""
        return int(self.control("faults_left"))

    def script(self) -> list[Fault]:
        """The steps of the fault script that are left, with the `times` that are left of them."""
        script: list[Fault] = self.control("script")
        return script

    def switches(self) -> Switches:
        """All switches."""
        switches: Switches = self.control("switches")
        return switches

    def set_switches(self, **switches: Unpack[Switches]) -> None:
        """Changes these switches; the others stay."""
        self.control("set_switches", switches=switches)

    def put_app(self, app: App) -> None:
        """Adds an app, or replaces the one of this id."""
        self.control("put_app", app=app)

    def put_user(self, user: User) -> None:
        """Adds a person, or replaces the one of this open id."""
        self.control("put_user", user=user)

    def put_chat(self, chat: Chat) -> None:
        """Adds a chat, or replaces the one of this id."""
        self.control("put_chat", chat=chat)

    def pause_listening(self) -> None:
        """Closes the ports: who connects now is refused. Open connections stay."""
        self.control("pause_listening")

    def resume_listening(self) -> None:
        """Listens on the same ports again."""
        self.control("resume_listening")

    def close_connections(self) -> None:
        """Closes every open connection, as a server does with idle ones."""
        self.control("close_connections")

    def close(self) -> None:
        """Stops listening, and closes every connection."""
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
