"""Token providers."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from event_loops import NEW_LOOPS
from feishu_feed_card import (
    AsyncClient,
    AuthenticationError,
    Client,
    DeadlineExceededError,
    InvalidInputError,
)
from vaults import Vault, token

if TYPE_CHECKING:
    from collections.abc import Callable

    from feishu_feed_card.sandbox import Sandbox


KINDS = pytest.mark.parametrize("kind", range(7))


@KINDS
def test_blocking_calls_accept_each_kind_of_provider(feishu_sandbox: Sandbox, kind: int):
    vault = Vault(feishu_sandbox)
    with feishu_sandbox.client(token_provider=vault.kinds()[kind]) as client:
        for _ in range(3):
            assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok
    assert len(vault.threads) == 1
    assert vault.threads[0] != threading.get_ident(), "it may block, and must not delay the call's deadline"


@KINDS
def test_async_calls_accept_each_kind_of_provider(feishu_sandbox: Sandbox, kind: int):
    vault = Vault(feishu_sandbox)

    async def main():
        async with feishu_sandbox.async_client(token_provider=vault.kinds()[kind]) as client:
            calls = [client.set_bot_time_sensitive([feishu_sandbox.USER], True) for _ in range(10)]
            assert all(outcome.ok for outcome in await asyncio.gather(*calls))

    asyncio.run(main())
    assert len(vault.threads) == 1, "one call of the provider for all callers"
    on_the_loop = vault.threads[0] == threading.get_ident()
    assert on_the_loop == (kind >= 2), "a coroutine on the caller's loop, a function in a thread"


def test_the_provider_is_called_again_after_a_refusal(feishu_sandbox: Sandbox):
    with feishu_sandbox.client(token_provider=lambda: token(feishu_sandbox)) as client:
        assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok
        feishu_sandbox.revoke_tokens()
        assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok
    assert feishu_sandbox.token_fetches() == 2

    async def main():
        async def provider() -> str:
            return await asyncio.to_thread(token, feishu_sandbox)

        async with feishu_sandbox.async_client(token_provider=provider) as client:
            assert (await client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok
            feishu_sandbox.revoke_tokens()
            assert (await client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok

    asyncio.run(main())


class Recorder:
    """Returns its tokens in turn, then always the last one. Records the refused tokens."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.refused: list[str | None] = []

    def plain(self, refused_token: str | None) -> str:
        self.refused.append(refused_token)
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]

    async def coroutine(self, *, refused_token: str | None = None) -> str:
        await asyncio.sleep(0)
        return self.plain(refused_token)

    async def __call__(self, refused_token: str | None = None) -> str:
        return await self.coroutine(refused_token=refused_token)

    def second(self, _: object, refused_token: str | None) -> str:
        return self.plain(refused_token)

    def kinds(self) -> list[Any]:
        @functools.wraps(self.plain)
        def decorated(*args: Any, **kwargs: Any) -> str:
            return self.plain(*args, **kwargs)

        return [
            self.plain,
            self.coroutine,
            self,
            functools.partial(self.second, "vault"),
            lambda refused_token: self.coroutine(refused_token=refused_token),
            lambda vault=self, refused_token=None: vault.plain(refused_token),
            decorated,
        ]


@pytest.mark.parametrize("kind", range(7))
@pytest.mark.parametrize("is_async", [False, True])
def test_a_provider_gets_the_refused_token(feishu_sandbox: Sandbox, kind: int, is_async: bool):
    revoked = token(feishu_sandbox)
    feishu_sandbox.revoke_tokens()
    recorder = Recorder(revoked, token(feishu_sandbox))
    provider = recorder.kinds()[kind]

    async def main():
        async with feishu_sandbox.async_client(token_provider=provider) as client:
            assert (await client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok

    if is_async:
        asyncio.run(main())
    else:
        with feishu_sandbox.client(token_provider=provider) as client:
            assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok
    assert recorder.refused == [None, revoked]


def test_a_provider_gets_the_refused_token_in_many_calls(feishu_sandbox: Sandbox):
    revoked = token(feishu_sandbox)
    feishu_sandbox.revoke_tokens()
    recorder = Recorder(revoked, token(feishu_sandbox))
    pin = {"feed_card_id": feishu_sandbox.CHAT, "user_ids": [feishu_sandbox.USER], "time_sensitive": True}
    with feishu_sandbox.client(token_provider=recorder.plain) as client:
        assert [item.error for item in client.set_time_sensitive_many([pin, pin])] == [None, None]
    assert recorder.refused == [None, revoked]


def test_a_provider_without_the_parameter_gets_no_argument(feishu_sandbox: Sandbox):
    good = token(feishu_sandbox)

    class Own:
        def __call__(self) -> str:
            return good

    @functools.wraps(lambda refused_token: refused_token)
    def decorated() -> str:
        return good

    for provider in (
        lambda: good,
        lambda kept=good: kept,
        lambda kept=good, refused=None: kept if refused is None else "",
        lambda *args: "" if args else good,
        lambda **kwargs: good,
        functools.partial(lambda kept: kept, good),
        Own(),
        decorated,
        Mock(return_value=good),
        iter([good]).__next__,
        good.strip,
        good.__str__,
    ):
        with feishu_sandbox.client(token_provider=provider) as client:
            assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok


def test_a_provider_with_an_unsuitable_signature_is_refused():
    for provider in (lambda one: one, lambda one, refused_token: one, lambda *, named: named):
        with pytest.raises(InvalidInputError, match="refused_token") as caught:
            Client(token_provider=provider)
        assert caught.value.field == "token_provider"


def test_a_refused_token_that_the_provider_returns_again_is_not_sent(feishu_sandbox: Sandbox):
    revoked = token(feishu_sandbox)
    feishu_sandbox.revoke_tokens()
    before = feishu_sandbox.request_count()
    with feishu_sandbox.client(token_provider=lambda: revoked) as client:
        with pytest.raises(AuthenticationError) as caught:
            client.set_bot_time_sensitive([feishu_sandbox.USER], True)
    assert feishu_sandbox.request_count() == before + 1
    error = caught.value
    assert "the token_provider returned the token that the platform had refused" in str(error)
    assert "refused_token" in str(error.hint)
    assert (error.attempts, error.station, error.failed) == (1, "token", (feishu_sandbox.USER,))


def test_no_frame_of_ours_keeps_the_refused_token(feishu_sandbox: Sandbox):
    revoked = token(feishu_sandbox)
    feishu_sandbox.revoke_tokens()

    def provider(refused_token: str | None) -> str:
        if refused_token is None:
            return revoked
        del refused_token
        raise LookupError("no other token")

    async def main():
        async with feishu_sandbox.async_client(token_provider=provider) as client:
            await client.set_bot_time_sensitive([feishu_sandbox.USER], True)

    for call in (
        lambda: feishu_sandbox.client(token_provider=provider).set_bot_time_sensitive(
            [feishu_sandbox.USER], True
        ),
        lambda: asyncio.run(main()),
    ):
        with pytest.raises(AuthenticationError) as caught:
            call()
        cause = caught.value.__cause__
        assert isinstance(cause, LookupError)
        frames = cause.__traceback__
        while frames is not None:
            assert frames.tb_frame.f_code is provider.__code__ or revoked not in repr(
                frames.tb_frame.f_locals
            )
            frames = frames.tb_next


@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_of_the_provider_is_the_cause_of_the_error(feishu_sandbox: Sandbox, is_async: bool):
    def provider() -> str:
        raise LookupError("the vault is sealed")

    async def main():
        async with feishu_sandbox.async_client(token_provider=provider) as client:
            await client.set_bot_time_sensitive([feishu_sandbox.USER], True)

    with pytest.raises(AuthenticationError, match="LookupError: the vault is sealed") as caught:
        if is_async:
            asyncio.run(main())
        else:
            feishu_sandbox.client(token_provider=provider).set_bot_time_sensitive([feishu_sandbox.USER], True)
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.__cause__.__traceback__ is not None
    assert caught.value.station == "token"
    assert caught.value.not_attempted == (feishu_sandbox.USER,)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        7,
        b"t-hidden",
        ("t-hidden", "soon"),
        ("t-hidden", -1),
        ("t-hidden", True),
        (1, 2),
        ("t-hidden", 1, 2),
        ["t"],
    ],
)
def test_an_invalid_result_of_the_provider_is_an_error(feishu_sandbox: Sandbox, returned: Any):
    client = feishu_sandbox.client(token_provider=lambda: returned)
    with pytest.raises(AuthenticationError, match="the token provider failed") as caught:
        client.set_bot_time_sensitive([feishu_sandbox.USER], True)
    assert "hidden" not in str(caught.value)


def test_a_hanging_provider_does_not_delay_the_deadline(feishu_sandbox: Sandbox):
    let_go = threading.Event()

    def provider() -> str:
        let_go.wait(20)
        return "t-1"

    async def hangs() -> str:
        await asyncio.sleep(20)
        return "t-1"

    async def main():
        async with feishu_sandbox.async_client(token_provider=hangs) as client:
            await client.set_bot_time_sensitive([feishu_sandbox.USER], True, timeout=0.1)

    started = time.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        feishu_sandbox.client(token_provider=provider).set_bot_time_sensitive(["ou_1"], True, timeout=0.1)
    assert caught.value.station == "token"
    with pytest.raises(DeadlineExceededError):
        asyncio.run(main())
    assert time.monotonic() - started < 2
    let_go.set()


def test_a_provider_runs_in_the_callers_context(feishu_sandbox: Sandbox):
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")
    seen: list[str] = []
    vault = Vault(feishu_sandbox)

    async def provider() -> str:
        seen.append(tenant.get())
        return vault.token

    def blocking() -> str:
        seen.append(tenant.get())
        return vault.token

    async def main():
        async with feishu_sandbox.async_client() as other:
            await other.set_bot_time_sensitive([feishu_sandbox.USER], True)
        tenant.set("one")
        for kind in (provider, blocking):
            async with feishu_sandbox.async_client(token_provider=kind) as client:
                await client.set_bot_time_sensitive([feishu_sandbox.USER], True)

    asyncio.run(main())
    tenant.set("two")
    feishu_sandbox.client(token_provider=blocking).set_bot_time_sensitive([feishu_sandbox.USER], True)
    assert seen == ["one", "one", "two"]


def test_cancelling_one_caller_does_not_cancel_the_provider(feishu_sandbox: Sandbox):
    vault = Vault(feishu_sandbox)
    asked = 0

    async def provider() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.2)
        return vault.token

    async def main():
        async with feishu_sandbox.async_client(token_provider=provider) as client:
            first = asyncio.create_task(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
            await asyncio.sleep(0.05)
            first.cancel()
            assert (await second).ok

    asyncio.run(main())
    assert asked == 1


def test_a_loop_may_be_closed_while_its_provider_runs(feishu_sandbox: Sandbox):
    vault = Vault(feishu_sandbox)
    slow = True

    async def provider() -> str:
        if slow:
            await asyncio.sleep(30)
        return vault.token

    client = feishu_sandbox.async_client(token_provider=provider)

    async def starts():
        task = asyncio.create_task(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(starts())
    slow = False

    assert asyncio.run(client.set_bot_time_sensitive([feishu_sandbox.USER], True, timeout=5)).ok
    asyncio.run(client.aclose())


def test_a_waiting_call_starts_the_provider_again_if_the_loop_of_the_first_was_closed(
    feishu_sandbox: Sandbox,
):
    vault = Vault(feishu_sandbox)
    loops: list[Any] = []

    async def provider() -> str:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 1:
            await asyncio.sleep(30)
        return vault.token

    client = feishu_sandbox.async_client(token_provider=provider)
    ends: list[bool] = []

    async def starts():
        task = asyncio.create_task(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
        await asyncio.sleep(0.3)
        task.cancel()

    async def waits():
        ends.append((await client.set_bot_time_sensitive([feishu_sandbox.USER], True, timeout=10)).ok)

    first = threading.Thread(target=asyncio.run, args=(starts(),))
    first.start()
    while not loops:
        time.sleep(0.005)
    asyncio.run(waits())
    first.join(10)
    assert ends == [True]
    assert len(loops) == 2
    assert loops[0] is not loops[1], "each on the loop of its own call"


LOOPS = pytest.mark.parametrize("new_loop", NEW_LOOPS)


@LOOPS
def test_a_loop_may_be_closed_before_it_starts_the_provider(
    new_loop: Callable[[], Any], feishu_sandbox: Sandbox
):
    client = feishu_sandbox.async_client(token_provider=Vault(feishu_sandbox).coroutine)
    loop = new_loop()
    call_soon_threadsafe = loop.call_soon_threadsafe

    def call_after_the_stop(*args: Any) -> Any:
        while loop.is_running():
            time.sleep(0.001)
        return call_soon_threadsafe(*args)

    loop.call_soon_threadsafe = call_after_the_stop

    async def asks() -> None:
        loop.call_soon(loop.stop)
        await client.set_bot_time_sensitive([feishu_sandbox.USER], True)

    task = loop.create_task(asks())
    loop.run_forever()
    time.sleep(0.2)  # the request for a token is in the loop's mailbox
    loop.close()
    assert asyncio.run(client.set_bot_time_sensitive([feishu_sandbox.USER], True, timeout=5)).ok
    task._log_destroy_pending = False


@LOOPS
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_closed_loop_is_collected_with_its_provider(new_loop: Callable[[], Any], feishu_sandbox: Sandbox):
    vault = Vault(feishu_sandbox)
    asked = 0

    async def provider() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(30)
        return vault.token

    client = feishu_sandbox.async_client(token_provider=provider)

    def leave() -> weakref.ref[Any]:
        loop = new_loop()
        loop.set_exception_handler(lambda *_: None)  # for the provider's task, which is destroyed
        task = loop.create_task(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
        task._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0.2))
        loop.close()
        return weakref.ref(loop)

    loop = leave()
    gc.collect()
    assert loop() is None
    assert asyncio.run(client.set_bot_time_sensitive([feishu_sandbox.USER], True, timeout=5)).ok
    assert asked == 2


def test_a_provider_may_make_calls(feishu_sandbox: Sandbox):
    inner = feishu_sandbox.client()

    def provider() -> str:
        assert inner.set_bot_time_sensitive([feishu_sandbox.USER], True).ok
        return token(feishu_sandbox)

    with feishu_sandbox.client(token_provider=provider) as client:
        assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_cycle_through_a_provider_is_collected(feishu_sandbox: Sandbox, kind: Any):
    class Bot:
        def __init__(self, good: bool) -> None:
            self.good = good
            self.token = token(feishu_sandbox)
            self.client = kind(base_url=feishu_sandbox.base_url, token_provider=self.provide)

        def provide(self) -> str:
            if not self.good:
                raise LookupError("with a traceback that refers to the bot")
            return self.token

        def call(self) -> None:
            try:
                made = self.client.set_bot_time_sensitive([feishu_sandbox.USER], True)
                if asyncio.iscoroutine(made):
                    asyncio.run(made)
            except AuthenticationError:
                assert not self.good

    for good in (True, False):
        bot = Bot(good)
        bot.call()
        gone = weakref.ref(bot)
        del bot
        deadline = time.monotonic() + 5
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.02)  # the provider's thread ends a little later
            gc.collect()
        assert gone() is None
