"""The clients: for blocking callers, and for asyncio. Each call stands side by side in both."""

from __future__ import annotations

import os

from feishu_feed_card import _native
from feishu_feed_card._errors import CLASSES, FeedCardError
from feishu_feed_card._hints import HINTS
from feishu_feed_card._native import BOT, PLATFORM_RATE_LIMIT, Outcome, Progress, Quota, invalid_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable
    from types import TracebackType
    from typing import Any, Literal, NoReturn, TypeVar

    from typing_extensions import Self, Unpack

    from feishu_feed_card._many import AsyncMany, Many
    from feishu_feed_card._types import ClientOptions, Request, TokenProvider, UserIds, UserIdType

    _F = TypeVar("_F", bound=Callable[..., Any])
else:
    globals().update(HINTS)

_CO_COROUTINE = 0x80


# Here and not in a file of its own, as each file costs the import 0.3 ms.
def checked(function: _F) -> _F:
    """Makes a call that does not fit the signature an InvalidInputError that names the argument."""
    if function.__code__.co_flags & _CO_COROUTINE:

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            try:
                coroutine = function(*args, **kwargs)
            except TypeError:
                raise _mismatch(function, args, kwargs) from None
            return await coroutine

        call: Callable[..., Any] = call_async
    else:

        def call_blocking(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except FeedCardError as error:
                failure: Exception = error
            except TypeError as error:
                # Where the function's own frame is in the traceback, the call did fit.
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise
                failure = _mismatch(function, args, kwargs)
            # What shows tracebacks with the frames' variables (pytest does) shall find no secret in ours; and
            # raised here, the error tells what was being handled when the call was made, as any other.
            del args, kwargs
            try:
                raise failure.with_traceback(None)
            finally:
                del failure

        call = call_blocking

    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        setattr(call, name, getattr(function, name))
    call.__wrapped__ = function  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _mismatch(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception:
    code = function.__code__
    positional = code.co_varnames[1 : code.co_argcount]
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    given = args[1:]
    user_ids = {**dict(zip(positional, given, strict=False)), **kwargs}.get("user_ids")

    def wrong(field: str, value: str, expected: str) -> Exception:
        return invalid_input(CLASSES, field, value, expected, user_ids)

    for name in kwargs:
        if name not in names:
            return wrong(name, "not an option", f"one of {', '.join(names)}")
        if name in positional[: len(given)]:
            return wrong(name, "given twice", "one value")
    if len(given) > len(positional):
        return wrong(
            names[len(positional)] if len(names) > len(positional) else function.__name__,
            f"{len(given)} positional arguments",
            f"at most {len(positional)}, and keywords for the rest",
        )
    required = positional[: len(positional) - len(function.__defaults__ or ())]
    missing = [name for name in required[len(given) :] if name not in kwargs]
    return wrong(missing[0], "missing", "a value")


class _BaseClient:
    """What both clients have in common: who they are, and their options."""

    _is_async = False
    _bound: _native.Client

    @checked
    def __init__(
        self,
        app_id: str | None = None,
        app_secret: str | None = None,
        *,
        tenant_access_token: str | None = None,
        token_provider: TokenProvider | None = None,
        tenant_key: str | None = None,
        app_ticket: str | None = None,
        base_url: str | None = None,
        allow_http: bool = False,
        proxy: str | Literal[False] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        user_agent: str | None = None,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        attempt_timeout: float | None = None,
        max_retries: int | None = None,
        rate_limit: tuple[int, int] | None = PLATFORM_RATE_LIMIT,
        quota: Quota | None = None,
        late_arrival: float | None = None,
        max_users_per_request: int | None = None,
    ) -> None:
        """Makes a client. Nothing is sent yet.

        Args:
            app_id: The app's id, "cli_…".
            app_secret: The app's secret.
            tenant_access_token: A token to use as it is, instead of an app. It cannot be renewed.
            token_provider: A function that returns a token, or a token and the seconds it is good for,
                instead of an app. It may be an `async def`, and runs on the event loop of the call that
                needs a token; any other function runs in a thread of its own, so that it may block. It is
                called once however many calls wait, when the token nears its end, and when the platform
                refuses the token: then it must return a different one. A function with a parameter
                `refused_token` gets the refused token then, and None otherwise. (`Client` runs an
                `async def` with `asyncio.run` in that thread, also while nobody waits for the next of many
                results.)
            tenant_key: Makes the app a store app, acting for this tenant.
            app_ticket: The ticket that the platform pushed to the store app last; later ones go to
                `set_app_ticket`.
            base_url: Where the platform is: "https://open.larksuite.com" for Lark. Default:
                "https://open.feishu.cn".
            allow_http: Allows http to a host that is not this machine: the token travels readable to all.
            proxy: A proxy, "http://user:password@host:port" with the password percent-encoded; or with https,
                socks5h (the proxy resolves names; also spelled socks), socks5, socks4a or socks4 for http; or
                False for none, whatever the environment says. Default: HTTPS_PROXY (HTTP_PROXY for an http
                `base_url`), ALL_PROXY and NO_PROXY; on macOS and Windows the system's settings, if no
                variable is set; none for a `base_url` on this machine.
            ca_certs: A PEM file with certificates to trust besides the usual ones. The usual ones are
                Mozilla's, and where those do not know the issuer, the system's (SSL_CERT_FILE names others).
            user_agent: Appended to the client's own User-Agent.
            timeout: How many seconds one call may take, including all retries and waiting. Default: 30.
            connect_timeout: How many seconds making a connection may take. Default: 5.
            attempt_timeout: How many seconds one attempt may take. Default: all that remains.
            max_retries: How often a failed attempt is retried. Default: 3.
            rate_limit: How many calls to make at most, in any second and in any minute; None for no
                pacing.
            quota: Another client's `quota`, to share it: the platform counts by app, not by client.
            late_arrival: How many seconds after its connection closed a request without an answer may still
                arrive at the platform. Default: 5. Its slot of the quota and opposite calls on its chat wait
                that long. On Linux and Android the kernel stops sending it about two seconds earlier.
                macOS and Windows cannot, so there it may arrive later still: 600 (macOS) and 60 (Windows)
                cover what the system itself does.
            max_users_per_request: Calls with more users than this are split. Default: 50.

        Raises:
            InvalidInputError: An option is wrong; `field` names it.
        """
        options = locals()
        del options["self"]
        self._open(options, from_env=False)

    def _open(self, options: dict[str, Any], *, from_env: bool) -> None:
        # By identity: who gives a limit and a quota shall hear that they exclude each other.
        if options.get("rate_limit") is PLATFORM_RATE_LIMIT:
            del options["rate_limit"]
        self._bound = _native.Client(CLASSES, options, from_env=from_env, is_async=self._is_async)

    @classmethod
    @checked
    def from_env(cls, **options: Unpack[ClientOptions]) -> Self:
        """Makes a client of the app in FEISHU_APP_ID and FEISHU_APP_SECRET, at FEISHU_BASE_URL if set.

        Args:
            **options: The constructor's; they come before the environment.

        Returns:
            A client.

        Raises:
            InvalidInputError: A variable is missing, or an option is wrong.

        Example:
            >>> import os
            >>> os.environ.update(FEISHU_APP_ID="cli_…", FEISHU_APP_SECRET="…")
            >>> client = Client.from_env(timeout=10)
        """
        client = cls.__new__(cls)
        client._open(dict(options), from_env=True)
        return client

    @property
    def quota(self) -> Quota | None:
        """The client's quota, to share it with another client of the same app; None without pacing."""
        return self._bound.quota

    @checked
    def set_app_ticket(self, app_ticket: str) -> None:
        """Hands over the ticket that the platform pushed to a store app's event endpoint.

        Args:
            app_ticket: The ticket.

        Raises:
            InvalidInputError: The client is not a store app's, or the ticket is empty.
        """
        self._bound.set_app_ticket(app_ticket)

    def __repr__(self) -> str:
        if not hasattr(self, "_bound"):
            where = "that was not made"
        else:
            where = "closed" if self._bound.closed else f"of {self._bound.base_url}"
        return f"<feishu_feed_card.{type(self).__name__} {where}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} holds a secret and connections: make one in each process, not a pickle"
        )


class Client(_BaseClient):
    """Pins group chats to the top of people's message lists, and unpins them again; blocking.

    May be used from many threads at once; they share its token, connections and quota. Calls release the
    GIL and end at once on Ctrl-C. After a fork the child's client works on, with connections of its own.

    Example:
        >>> from feishu_feed_card.sandbox import Sandbox
        >>> sandbox = Sandbox()
        >>> with Client("cli_example", "example-secret", base_url=sandbox.base_url) as client:
        ...     outcome = client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
        >>> outcome.ok
        True
        >>> sandbox.close()
    """

    @checked
    def set_time_sensitive(
        self,
        feed_card_id: str,
        user_ids: UserIds,
        time_sensitive: bool,
        *,
        user_id_type: UserIdType = "open_id",
        timeout: float | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> Outcome:
        """Pins (True) or unpins (False) a group chat at the top of these users' message lists.

        The bot must be in the chat, and so must the users: those who are not come back in the outcome's
        `failed_user_reasons`. The call sets a state, so making it twice does no harm.

        Args:
            feed_card_id: The group chat's id, "oc_…".
            user_ids: Whose lists. Repeated ids are sent once; long lists go in several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: Which kind of id the user ids are.
            timeout: How many seconds the call may take; None for the client's.
            on_event: Called with each event of this call, in the caller's thread. An event is a dict with
                `name`, `level`, `call` (the call's number), and what is known: `attempt`, `status`, `log_id`.
                Spans (`attempt`, `token_fetch`, `call`) come when they end, with `duration_s`.

        Returns:
            What became of every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed, before the call or during it.
            FeedCardError: The call failed; its class says how.

        Example:
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> with Sandbox() as sandbox, sandbox.client() as client:
            ...     outcome = client.set_time_sensitive(sandbox.CHAT, [sandbox.USER, sandbox.OUTSIDER], True)
            >>> [reason.error_message for reason in outcome.failed_user_reasons]
            ['The user is not in the chat']
        """
        return self._bound.call(feed_card_id, user_ids, time_sensitive, user_id_type, timeout, on_event)

    @checked
    def set_bot_time_sensitive(
        self,
        user_ids: UserIds,
        time_sensitive: bool,
        *,
        user_id_type: UserIdType = "open_id",
        timeout: float | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> Outcome:
        """Pins (True) or unpins (False) the bot's own chat at the top of these users' message lists.

        Args:
            user_ids: Whose lists. Repeated ids are sent once; long lists go in several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: Which kind of id the user ids are.
            timeout: How many seconds the call may take; None for the client's.
            on_event: Called with each event of this call, in the caller's thread. An event is a dict with
                `name`, `level`, `call` (the call's number), and what is known: `attempt`, `status`, `log_id`.
                Spans (`attempt`, `token_fetch`, `call`) come when they end, with `duration_s`.

        Returns:
            What became of every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed, before the call or during it.
            FeedCardError: The call failed; its class says how.

        Example:
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> with Sandbox() as sandbox, sandbox.client() as client:
            ...     client.set_bot_time_sensitive([sandbox.USER], True).ok
            True
        """
        return self._bound.call(BOT, user_ids, time_sensitive, user_id_type, timeout, on_event)

    @checked
    def set_time_sensitive_many(
        self,
        requests: Iterable[Request],
        *,
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        total_timeout: float | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> Many:
        """Makes many calls within the quota, as fast as it allows; gives the results as they finish.

        What one request fails with is its item's `error`, and does not end the loop. An exception that the
        iterable raises stops the others, and is raised after the results that were there. Nothing is sent
        until the first result is asked for.

        Args:
            requests: Any iterable of mappings with the parameters of `set_time_sensitive`, of any length. A
                request's `tag`, any value, comes back as its item's `tag`. The iterable is read on the
                calling thread, between results: one that blocks holds them up.
            concurrency: How many requests may be on their way, or wait for the quota, at a time: 100 unless
                said, and 10,000 at most. No more than these, and some whose results wait to be handed out,
                are ever read ahead.
            progress: A function, not an async one. Called with a `Progress` on the calling thread, where
                there is something new: as results come, every other second while none does, and at the end.
            total_timeout: How many seconds all of it may take. Default: no limit. After that no
                request is read, and those that were read and have no answer come back with an error. If not
                all were read, `DeadlineExceededError` is raised after the last item. A request's own
                `timeout` counts from its first slot of the quota, without the wait for further ones.
            on_event: Called with each event of these calls when results are taken. See `set_time_sensitive`.

        Returns:
            An iterator of `Item`s, one for each request, in the order they finish. Its `report()` says what
            became of everything, also if the loop is left early; `collect()` returns all items and the
            report.

        Raises:
            InvalidInputError: An argument is wrong. What is wrong with a single request comes back as its
                item's error.

        Example:
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> with Sandbox() as sandbox, sandbox.client() as client:
            ...     requests = (
            ...         {"feed_card_id": chat, "user_ids": [sandbox.USER], "time_sensitive": True, "tag": row}
            ...         for row, chat in {"row 7": sandbox.CHAT, "row 8": "oc_nowhere"}.items()
            ...     )
            ...     with client.set_time_sensitive_many(requests) as many:
            ...         for item in sorted(many, key=lambda item: item.index):
            ...             print(item.tag, item.error.kind if item.error else item.outcome.ok)
            row 7 True
            row 8 REJECTED
        """
        from feishu_feed_card._many import Many

        bound, iterator = self._bound.many(requests, concurrency, total_timeout, progress, on_event)
        return Many(bound, iterator, progress)

    def close(self, timeout: float | None = None) -> None:
        """Closes the client: new calls fail with a ClientClosedError, and many calls read no more requests.

        Without a timeout, this returns at once, and calls in progress in other threads finish normally.

        Args:
            timeout: How many seconds to wait for calls in progress. Those that are left then are stopped and
                raise a ClientClosedError; 0 stops them at once.

        Raises:
            InvalidInputError: The timeout is wrong; the client stays open.

        Example:
            >>> from feishu_feed_card import ClientClosedError
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> with Sandbox() as sandbox:
            ...     client = sandbox.client()
            ...     client.close(timeout=5)
            ...     try:
            ...         client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
            ...     except ClientClosedError as error:
            ...         print(error.not_attempted == (sandbox.USER,))
            True
        """
        self._bound.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(_BaseClient):
    """Pins group chats to the top of people's message lists, and unpins them again; for asyncio.

    Its options are `Client`'s. May be used from many tasks at once, and from several event loops; they
    share its token, connections and quota. Cancelling a task stops its request. The loop may be uvloop's;
    under trio use a `Client` in threads.

    Example:
        >>> import asyncio
        >>> from feishu_feed_card.sandbox import Sandbox
        >>> async def main(sandbox: Sandbox) -> None:
        ...     async with AsyncClient("cli_example", "example-secret", base_url=sandbox.base_url) as client:
        ...         outcome = await client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
        ...         print(outcome.ok)
        >>> with Sandbox() as sandbox:
        ...     asyncio.run(main(sandbox))
        True
    """

    _is_async = True

    @checked
    async def set_time_sensitive(
        self,
        feed_card_id: str,
        user_ids: UserIds,
        time_sensitive: bool,
        *,
        user_id_type: UserIdType = "open_id",
        timeout: float | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> Outcome:
        """Pins (True) or unpins (False) a group chat at the top of these users' message lists.

        The bot must be in the chat, and so must the users: those who are not come back in the outcome's
        `failed_user_reasons`. The call sets a state, so making it twice does no harm.

        Args:
            feed_card_id: The group chat's id, "oc_…".
            user_ids: Whose lists. Repeated ids are sent once; long lists go in several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: Which kind of id the user ids are.
            timeout: How many seconds the call may take; None for the client's.
            on_event: Called with each event of this call, on the event loop and in a copy of the caller's
                context. An event is a dict with `name`, `level`, `call` (the call's number), and what is
                known: `attempt`, `status`, `log_id`. Spans (`attempt`, `token_fetch`, `call`) come when they
                end, with `duration_s`.

        Returns:
            What became of every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed, before the call or during it.
            FeedCardError: The call failed; its class says how.

        Example:
            >>> import asyncio
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> async def main() -> None:
            ...     with Sandbox() as sandbox:
            ...         async with sandbox.async_client() as client:
            ...             outcome = await client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
            ...             print(outcome.reached == (sandbox.USER,))
            >>> asyncio.run(main())
            True
        """
        future, call = self._bound.start(
            feed_card_id, user_ids, time_sensitive, user_id_type, timeout, on_event
        )
        try:
            return await future
        finally:
            call.cancel()

    @checked
    async def set_bot_time_sensitive(
        self,
        user_ids: UserIds,
        time_sensitive: bool,
        *,
        user_id_type: UserIdType = "open_id",
        timeout: float | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> Outcome:
        """Pins (True) or unpins (False) the bot's own chat at the top of these users' message lists.

        Args:
            user_ids: Whose lists. Repeated ids are sent once; long lists go in several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: Which kind of id the user ids are.
            timeout: How many seconds the call may take; None for the client's.
            on_event: Called with each event of this call, on the event loop and in a copy of the caller's
                context. An event is a dict with `name`, `level`, `call` (the call's number), and what is
                known: `attempt`, `status`, `log_id`. Spans (`attempt`, `token_fetch`, `call`) come when they
                end, with `duration_s`.

        Returns:
            What became of every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed, before the call or during it.
            FeedCardError: The call failed; its class says how.

        Example:
            >>> import asyncio
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> async def main() -> None:
            ...     with Sandbox() as sandbox:
            ...         async with sandbox.async_client() as client:
            ...             print((await client.set_bot_time_sensitive([sandbox.USER], True)).ok)
            >>> asyncio.run(main())
            True
        """
        future, call = self._bound.start(BOT, user_ids, time_sensitive, user_id_type, timeout, on_event)
        try:
            return await future
        finally:
            call.cancel()

    @checked
    def set_time_sensitive_many(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        total_timeout: float | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> AsyncMany:
        """Makes many calls within the quota, as fast as it allows; gives the results as they finish.

        What one request fails with is its item's `error`, and does not end the loop. An exception that the
        iterable raises stops the others, and is raised after the results that were there. Nothing is sent
        until the first result is asked for.

        Args:
            requests: Any iterable or async iterable of mappings with the parameters of
                `set_time_sensitive`, of any length. A request's `tag`, any value, comes back as its item's
                `tag`. The requests are read on the event loop on which the first result is asked for. A
                synchronous iterable is read for a few milliseconds at a time, so that other tasks can run.
            concurrency: How many requests may be on their way, or wait for the quota, at a time: 100 unless
                said, and 10,000 at most. No more than these, and some whose results wait to be handed out,
                are ever read ahead.
            progress: A function, not an async one. Called with a `Progress` on the event loop, where there is
                something new: as results come, every other second while none does, and at the end.
            total_timeout: How many seconds all of it may take. Default: no limit. After that no
                request is read, and those that were read and have no answer come back with an error. If not
                all were read, `DeadlineExceededError` is raised after the last item. A request's own
                `timeout` counts from its first slot of the quota, without the wait for further ones.
            on_event: Called with each event of these calls when results are taken, in the context of the
                task that takes them. See `set_time_sensitive`.

        Returns:
            An async iterator of `Item`s, one for each request, in the order they finish. Its `report()` says
            what became of everything, also if the loop is left early; `collect()` returns all items and the
            report. Both are awaited.

        Raises:
            InvalidInputError: An argument is wrong. What is wrong with a single request comes back as its
                item's error.

        Example:
            >>> import asyncio
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> async def main(sandbox: Sandbox) -> None:
            ...     async with sandbox.async_client() as client:
            ...         users = [sandbox.USER]
            ...         pin = {"feed_card_id": sandbox.CHAT, "user_ids": users, "time_sensitive": True}
            ...         async with client.set_time_sensitive_many([pin, {**pin, "user_ids": []}]) as many:
            ...             async for item in many:
            ...                 if item.error:
            ...                     print(item.index, item.error.kind)
            >>> with Sandbox() as sandbox:
            ...     asyncio.run(main(sandbox))
            1 INVALID_INPUT
        """
        from feishu_feed_card._many import AsyncMany

        bound, iterator = self._bound.many(requests, concurrency, total_timeout, progress, on_event)
        source = requests if iterator is None else None
        return AsyncMany(bound, iterator, progress, source)  # type: ignore[arg-type]

    async def aclose(self, timeout: float | None = None) -> None:
        """Closes the client: new calls fail with a ClientClosedError, and many calls read no more requests.

        Without a timeout, this returns at once, and calls in progress in other tasks finish normally.

        Args:
            timeout: How many seconds to wait for calls in progress. Those that are left then are stopped and
                raise a ClientClosedError; 0 stops them at once.

        Raises:
            InvalidInputError: The timeout is wrong; the client stays open.

        Example:
            >>> import asyncio
            >>> from feishu_feed_card.sandbox import Sandbox
            >>> async def main() -> None:
            ...     with Sandbox() as sandbox:
            ...         client = sandbox.async_client()
            ...         await client.aclose(timeout=5)
            >>> asyncio.run(main())
        """
        waiting = self._bound.start_close(timeout)
        if waiting is not None:
            future, call = waiting
            try:
                await future
            finally:
                call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
