"""A pytest plugin with the fixture `feishu_sandbox`. Imports the package when a test uses the fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feishu_feed_card.sandbox import Sandbox


@pytest.fixture
def feishu_sandbox() -> Iterator[Sandbox]:
    """A local stand-in for the Feishu platform, new for each test.

    `feishu_sandbox.client()` and `feishu_sandbox.async_client()` create clients for it. To use a bot's own
    client, pass it `feishu_sandbox.base_url`, `feishu_sandbox.APP_ID` and `feishu_sandbox.APP_SECRET`.
    """
    from feishu_feed_card.sandbox import Sandbox

    with Sandbox() as sandbox:
        yield sandbox
