"""Token providers of many calls."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from many_players import PIN, asynchronously, play, play_async
from vaults import Vault, token
from waits import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from feishu_feed_card import Item
    from feishu_feed_card.sandbox import Sandbox


def test_token_providers_work_in_many_calls(sandbox: Sandbox):
    vault = Vault(sandbox)
    with sandbox.client(token_provider=vault.plain) as client:
        items, _ = play(client, [PIN] * 20)
        assert [item.error for item in items] == [None] * 20
    for provider in (vault.plain, vault.coroutine):
        items, _ = play_async(sandbox.async_client(token_provider=provider), asynchronously([PIN] * 20))
        assert [item.error for item in items] == [None] * 20
    assert len(vault.threads) == 3


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "dropped"])
def test_a_provider_runs_on_the_event_loop_of_the_many_calls(sandbox: Sandbox, keeps: bool):
    """And not on the event loop of the client's last call, which no longer exists."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="lost")
    asked: list[tuple[str, str]] = []
    is_waiting, goes_on = threading.Event(), threading.Event()
    kept: list[Any] = []

    async def provider() -> str:
        asked.append((threading.current_thread().name, variable.get()))
        return token(sandbox)

    client = sandbox.async_client(rate_limit=None, token_provider=provider, timeout=5)

    async def source() -> AsyncIterator[Any]:
        yield PIN
        await asyncio.sleep(0.2)
        is_waiting.set()
        while not goes_on.is_set():
            await asyncio.sleep(0.01)
        yield PIN

    async def many() -> None:
        variable.set("many")
        async for item in client.set_time_sensitive_many(source()):
            assert item.outcome is not None, item.error

    async def single() -> None:
        variable.set("single")
        if keeps:
            kept.append(asyncio.get_running_loop())
        await client.set_bot_time_sensitive([sandbox.USER], True)

    thread = threading.Thread(target=asyncio.run, args=(many(),), name="many")
    thread.start()
    is_waiting.wait(10)
    sandbox.revoke_tokens()
    asyncio.run(single())
    gc.collect()
    sandbox.revoke_tokens()
    goes_on.set()
    thread.join(20)
    assert asked == [("many", "many"), ("MainThread", "single"), ("many", "many")]


def test_a_provider_runs_on_the_event_loop_that_continues_the_many_calls(sandbox: Sandbox):
    vault = Vault(sandbox)
    client = sandbox.async_client(rate_limit=None, token_provider=vault.coroutine, timeout=5)
    many = client.set_time_sensitive_many([PIN] * 2, concurrency=1)

    async def one() -> Item:
        return await many.__anext__()

    assert asyncio.run(one()).error is None
    sandbox.revoke_tokens()
    vault.token = token(sandbox)
    assert asyncio.run(one()).error is None
    assert len(vault.threads) == 2


def test_a_provider_runs_while_no_item_is_awaited(sandbox: Sandbox):
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")
    asked: list[str] = []

    def provider() -> str:
        asked.append(tenant.get())
        return token(sandbox)

    before = threading.active_count()
    tenant.set("one")
    with sandbox.client(token_provider=provider, rate_limit=None) as client:
        assert client.set_bot_time_sensitive([sandbox.USER], True).ok
        calls = sandbox.request_count()
        sandbox.faults([{"on": "call", "delay_before_ms": 300}])
        many = client.set_time_sensitive_many([PIN, {**PIN, "feed_card_id": "nowhere"}])
        assert next(many).index == 1
        eventually(lambda: sandbox.request_count() > calls)
        sandbox.revoke_tokens()
        eventually(lambda: len(asked) == 2)
        assert next(many).error is None
        eventually(lambda: threading.active_count() == before)
        assert next(many, None) is None
    assert asked == ["one", "one"], "in the caller's context"
