"""Token providers of each kind, for tests."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feishu_feed_card.sandbox import Sandbox


def token(sandbox: Sandbox) -> str:
    """Fetches a token that the sandbox accepts."""
    import json
    import urllib.request

    request = urllib.request.Request(
        f"{sandbox.base_url}/open-apis/auth/v3/tenant_access_token/internal",
        json.dumps({"app_id": sandbox.APP_ID, "app_secret": sandbox.APP_SECRET}).encode(),
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["tenant_access_token"])


class Vault:
    """Has a provider of each kind, and records the thread of each call."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.token = token(sandbox)
        self.threads: list[int] = []

    def plain(self) -> str:
        self.threads.append(threading.get_ident())
        return self.token

    def for_an_hour(self) -> tuple[str, float]:
        self.threads.append(threading.get_ident())
        return self.token, 3600.0

    async def coroutine(self) -> str:
        self.threads.append(threading.get_ident())
        await asyncio.sleep(0.01)
        return self.token

    def returns_a_coroutine(self) -> Any:
        return self.coroutine()

    async def __call__(self) -> str:
        return await self.coroutine()

    def kinds(self) -> list[Any]:
        return [
            self.plain,
            self.for_an_hour,
            self.coroutine,
            self.returns_a_coroutine,
            self,
            functools.partial(self.coroutine),
            lambda: self.coroutine(),
        ]
