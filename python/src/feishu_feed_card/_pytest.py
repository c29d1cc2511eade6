"""A pytest plugin: the fixture `feishu_sandbox`. Imports nothing of the package until it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feishu_feed_card.sandbox import Sandbox


@pytest.fixture
def feishu_sandbox() -> Iterator[Sandbox]:
    """A stand-in for the Feishu platform, new for each test.

    `feishu_sandbox.client()` and `feishu_sandbox.async_client()` make clients for it; a bot's own client is
    pointed at `feishu_sandbox.base_url`, with `feishu_sandbox.APP_ID` and `feishu_sandbox.APP_SECRET`.
    """
    from feishu_feed_card.sandbox import Sandbox

    with Sandbox() as sandbox:
        yield sandbox
