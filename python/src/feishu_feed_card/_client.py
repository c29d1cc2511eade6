"""The blocking client and the asyncio client. Both have the same operations."""

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


# Not in a separate file: each file adds 0.3 ms to the import.
def checked(function: _F) -> _F:
    """Replaces Python's TypeError for wrong arguments by an InvalidInputError that names the argument."""
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
                # The function's own frame in the traceback means that the arguments fitted the signature.
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise
                failure = _mismatch(function, args, kwargs)
            # Tools such as pytest print the variables of all frames in a traceback: keep secrets out of ours.
            # Raising outside the `except` blocks keeps the caller's own `__context__`.
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
    """Options, credentials and properties that both clients share."""

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
        """Creates a client. Sends nothing.

        Pass one kind of credentials: `app_id` and `app_secret`, a `tenant_access_token`, or a
        `token_provider`.

        Args:
            app_id: The app's id, "cli_…".
            app_secret: The app's secret.
            tenant_access_token: A token to use without renewal. After the platform refuses it, calls fail.
            token_provider: A function that returns a token, or a tuple of a token and its remaining lifetime
                in seconds. The client calls it for the first token, before a token expires, and after the
                platform refused a token; then it must return a different one. One call of it serves all
                calls that wait for a token. If it has a parameter `refused_token`, it receives the refused
                token, or None. An ordinary function runs in a separate thread and may block. With an
                `AsyncClient`, an `async def` runs on the event loop of the call that needs the token. With a
                `Client`, it runs in the separate thread with `asyncio.run`.
            tenant_key: The tenant that a store app acts for. If given, the app is a store app.
            app_ticket: The ticket that the platform last pushed to the store app. Pass later tickets to
                `set_app_ticket`.
            base_url: The platform's URL: "https://open.larksuite.com" for Lark. Default:
                "https://open.feishu.cn".
            allow_http: Allows a `base_url` with http on another machine. The token is then sent unencrypted.
                Default: False.
            proxy: A proxy's URL, "http://user:password@host:port", with the password percent-encoded. Other
                schemes: https, socks5h or socks (the proxy resolves names), socks5, socks4a, socks4. False
                disables proxies, including those of the environment. Default: the variables HTTPS_PROXY
                (HTTP_PROXY for an http `base_url`), ALL_PROXY and NO_PROXY; on macOS and Windows the system
                settings if no variable is set; no proxy for a `base_url` on this machine.
            ca_certs: Path of a PEM file with certificates to trust in addition to Mozilla's roots. The
                system's roots, or those in SSL_CERT_FILE, are used when Mozilla's do not know an issuer.
            user_agent: Text appended to the client's own User-Agent.
            timeout: Deadline of one call in seconds, including retries and waiting. Default: 30.
            connect_timeout: Deadline for opening a connection, in seconds. Default: 5.
            attempt_timeout: Deadline of one attempt in seconds. Default: the rest of the call's `timeout`.
            max_retries: Maximum number of retries of a failed attempt. Default: 3.
            rate_limit: Maximum number of requests in any second and in any minute, as a tuple. None disables
                the limits. Default: the platform's, (50, 1000).
            quota: Another client's `quota`, to share its limits. The platform counts requests per app, not
                per client.
            late_arrival: For how many seconds after its connection closed an unanswered request may still
                reach the platform. Default: 5. During this time it keeps its slot of the quota, and calls of
                the opposite state on its chat wait. On Linux and Android the kernel stops sending the request
                about two seconds before. macOS and Windows have no such limit: set 600 on macOS and 60 on
                Windows to cover the time for which the system retransmits.
            max_users_per_request: Maximum number of users in one request. Calls with more are split.
                Default: 50.

        Raises:
            InvalidInputError: An option is wrong; `field` names it.
        """
        options = locals()
        del options["self"]
        self._open(options, from_env=False)

    def _open(self, options: dict[str, Any], *, from_env: bool) -> None:
        # Compares identity, not equality: a `rate_limit` passed together with a `quota` is an error, even if
        # it equals the default.
        if options.get("rate_limit") is PLATFORM_RATE_LIMIT:
            del options["rate_limit"]
        self._bound = _native.Client(CLASSES, options, from_env=from_env, is_async=self._is_async)

    @classmethod
    @checked
    def from_env(cls, **options: Unpack[ClientOptions]) -> Self:
        """Creates a client from the variables FEISHU_APP_ID, FEISHU_APP_SECRET and, if set, FEISHU_BASE_URL.

        Args:
            **options: The constructor's options. They take precedence over the variables.

        Returns:
            A client.

        Raises:
            InvalidInputError: A variable is missing, or an option is wrong; `field` names it.

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
        """The client's quota, to be shared with other clients of the app. None if `rate_limit` is None."""
        return self._bound.quota

    @checked
    def set_app_ticket(self, app_ticket: str) -> None:
        """Sets the ticket that the platform pushed to a store app's event endpoint.

        Args:
            app_ticket: The ticket.

        Raises:
            InvalidInputError: The client is not for a store app, or the ticket is empty.
        """
        self._bound.set_app_ticket(app_ticket)

    def __repr__(self) -> str:
        if not hasattr(self, "_bound"):
            where = "without options"
        else:
            where = "closed" if self._bound.closed else f"of {self._bound.base_url}"
        return f"<feishu_feed_card.{type(self).__name__} {where}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"cannot pickle a {type(self).__name__}, because it holds a secret and connections; "
            "create one in each process"
        )


class Client(_BaseClient):
    """A blocking client that pins group chats to the top of users' message lists, and unpins them.

    Threads may share a client, and with it the token, the connections and the quota. Calls release the GIL,
    and Ctrl-C interrupts them. After a fork the client also works in the child process, with separate
    connections and a separate quota.

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

        The bot and the users must be members of the chat. The outcome's `failed_user_reasons` lists the users
        who are not. The call sets a state, so repeating it is harmless.

        Args:
            feed_card_id: The group chat's id, "oc_…".
            user_ids: The users' ids. Repeated ids are sent once; long lists are split into several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: The type of the user ids.
            timeout: Deadline of the call in seconds, including retries and waiting. Default: the client's.
            on_event: A function that receives each event of this call, in the caller's thread. An event is a
                dict with `name`, `level`, `call` (the call's number) and, where known, `attempt`, `status`
                and `log_id`. Spans (`attempt`, `token_fetch`, `call`) are reported when they end, with their
                `duration_s`.

        Returns:
            The outcome, with the result for every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed before or during the call.
            FeedCardError: The call failed; the subclass says why.

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
            user_ids: The users' ids. Repeated ids are sent once; long lists are split into several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: The type of the user ids.
            timeout: Deadline of the call in seconds, including retries and waiting. Default: the client's.
            on_event: A function that receives each event of this call, in the caller's thread. An event is a
                dict with `name`, `level`, `call` (the call's number) and, where known, `attempt`, `status`
                and `log_id`. Spans (`attempt`, `token_fetch`, `call`) are reported when they end, with their
                `duration_s`.

        Returns:
            The outcome, with the result for every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed before or during the call.
            FeedCardError: The call failed; the subclass says why.

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
        """Makes many calls as fast as the quota allows, and returns an iterator of their results.

        A failed request does not end the loop: its item has the `error`. If the iterable raises an exception,
        all other requests are stopped, and the exception is raised after the available results. Nothing is
        sent until the first result is requested.

        Args:
            requests: An iterable, of any length, of mappings with the parameters of `set_time_sensitive`. A
                request may also have a `tag`, any value, which is returned as its item's `tag`. The iterable
                is read in the calling thread, between results, so an iterable that blocks delays them.
            concurrency: Maximum number of requests in progress or waiting for the quota. Default: 100;
                maximum: 10,000. Only these requests, and some more while their results wait to be taken, are
                read ahead.
            progress: A function, not an `async def`, that receives a `Progress` in the calling thread after
                results, every two seconds while none arrives, and at the end.
            total_timeout: Deadline of all calls together, in seconds. Default: no limit. After it no more
                requests are read, and requests that are not finished fail. If some were not read,
                `DeadlineExceededError` is raised after the last item. The `timeout` of a single request
                starts with its first slot of the quota, and waiting for further slots does not count.
            on_event: A function that receives each event of these calls, in the thread that takes the results
                and while it takes them. See `set_time_sensitive`.

        Returns:
            An iterator of `Item`s, one for each request, in the order in which they finish. Its `report()`
            accounts for every request, also if the loop is left early; its `collect()` returns all items and
            the report.

        Raises:
            InvalidInputError: An argument is wrong. For a single invalid request, its item has the error.

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
        """Closes the client. New calls raise a ClientClosedError, and many calls read no more requests.

        Without a timeout, this method returns immediately, and calls in progress in other threads finish
        normally.

        Args:
            timeout: How many seconds to wait for calls in progress. Calls that are not finished then are
                stopped and raise a ClientClosedError. 0 stops all calls immediately.

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
    """A client for asyncio that pins group chats to the top of users' message lists, and unpins them.

    The options are those of `Client`. Tasks and event loops may share a client, and with it the token, the
    connections and the quota. Cancelling a task stops its request. uvloop is supported. With trio, use a
    `Client` in threads.

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

        The bot and the users must be members of the chat. The outcome's `failed_user_reasons` lists the users
        who are not. The call sets a state, so repeating it is harmless.

        Args:
            feed_card_id: The group chat's id, "oc_…".
            user_ids: The users' ids. Repeated ids are sent once; long lists are split into several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: The type of the user ids.
            timeout: Deadline of the call in seconds, including retries and waiting. Default: the client's.
            on_event: A function that receives each event of this call, in the thread of the event loop and in
                a copy of the caller's context. An event is a dict with `name`, `level`, `call` (the call's
                number) and, where known, `attempt`, `status` and `log_id`. Spans (`attempt`, `token_fetch`,
                `call`) are reported when they end, with their `duration_s`.

        Returns:
            The outcome, with the result for every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed before or during the call.
            FeedCardError: The call failed; the subclass says why.

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
            user_ids: The users' ids. Repeated ids are sent once; long lists are split into several requests.
            time_sensitive: True to pin, False to unpin.
            user_id_type: The type of the user ids.
            timeout: Deadline of the call in seconds, including retries and waiting. Default: the client's.
            on_event: A function that receives each event of this call, in the thread of the event loop and in
                a copy of the caller's context. An event is a dict with `name`, `level`, `call` (the call's
                number) and, where known, `attempt`, `status` and `log_id`. Spans (`attempt`, `token_fetch`,
                `call`) are reported when they end, with their `duration_s`.

        Returns:
            The outcome, with the result for every user id.

        Raises:
            InvalidInputError: An argument is wrong; nothing was sent.
            ClientClosedError: The client was closed before or during the call.
            FeedCardError: The call failed; the subclass says why.

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
        """Makes many calls as fast as the quota allows, and returns an async iterator of their results.

        A failed request does not end the loop: its item has the `error`. If the iterable raises an exception,
        all other requests are stopped, and the exception is raised after the available results. Nothing is
        sent until the first result is requested.

        Args:
            requests: An iterable or async iterable, of any length, of mappings with the parameters of
                `set_time_sensitive`. A request may also have a `tag`, any value, which is returned as its
                item's `tag`. The requests are read on the event loop on which the first result is requested.
                A synchronous iterable is read for a few milliseconds at a time, so that other tasks can run.
            concurrency: Maximum number of requests in progress or waiting for the quota. Default: 100;
                maximum: 10,000. Only these requests, and some more while their results wait to be taken, are
                read ahead.
            progress: A function, not an `async def`, that receives a `Progress` on the event loop after
                results, every two seconds while none arrives, and at the end.
            total_timeout: Deadline of all calls together, in seconds. Default: no limit. After it no more
                requests are read, and requests that are not finished fail. If some were not read,
                `DeadlineExceededError` is raised after the last item. The `timeout` of a single request
                starts with its first slot of the quota, and waiting for further slots does not count.
            on_event: A function that receives each event of these calls when results are taken, in the
                context of the task that takes them. See `set_time_sensitive`.

        Returns:
            An async iterator of `Item`s, one for each request, in the order in which they finish. Await its
            `report()`, which accounts for every request, also if the loop is left early, or its `collect()`,
            which returns all items and the report.

        Raises:
            InvalidInputError: An argument is wrong. For a single invalid request, its item has the error.

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
        """Closes the client. New calls raise a ClientClosedError, and many calls read no more requests.

        Without a timeout, this method returns immediately, and calls in progress in other tasks finish
        normally.

        Args:
            timeout: How many seconds to wait for calls in progress. Calls that are not finished then are
                stopped and raise a ClientClosedError. 0 stops all calls immediately.

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
