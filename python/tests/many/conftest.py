"""Fixtures for the tests of `set_time_sensitive_many`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from feishu_feed_card.sandbox import Sandbox
from many_players import asynchronously, play, play_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from feishu_feed_card import AsyncClient, Client, Item, Report


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox without frequency limits."""
    with Sandbox({"switches": {"per_second": None, "per_minute": None}}) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Client]:
    """A client without pacing and without late arrival."""
    with sandbox.client(rate_limit=None, late_arrival=0) as client:
        yield client


@pytest.fixture
def async_client(sandbox: Sandbox) -> AsyncClient:
    """An `AsyncClient` without pacing and without late arrival."""
    return sandbox.async_client(rate_limit=None, late_arrival=0)


@pytest.fixture(params=["Client", "AsyncClient", "AsyncClient from async"])
def player(request: pytest.FixtureRequest, client: Client, async_client: AsyncClient) -> Callable[..., Any]:
    """`play` with each kind of client and of source."""

    def player(requests: Iterable[Any], **options: Any) -> tuple[list[Item], Report]:
        if request.param == "Client":
            return play(client, requests, **options)
        if request.param == "AsyncClient":
            return play_async(async_client, requests, **options)
        return play_async(async_client, asynchronously(requests), **options)

    return player
