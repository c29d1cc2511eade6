"""Pins chats as their ids arrive on stdin, one per line, with a progress bar (pip install tqdm).

FEISHU_APP_ID=cli_… FEISHU_APP_SECRET=… watch-incidents | python pin_as_they_come.py ou_… ou_…
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from tqdm import tqdm

from feishu_feed_card import AsyncClient, Progress, Request


async def requests(on_call: tuple[str, ...]) -> AsyncIterator[Request]:
    """Yields a request for each line that is not blank."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        if chat := line.strip():
            yield {"feed_card_id": chat, "user_ids": on_call, "time_sensitive": True}


async def main(*on_call: str) -> int:
    """Returns the exit status: 0 if all users were reached."""
    with tqdm(unit="chat") as bar:

        def show(progress: Progress) -> None:
            bar.set_postfix(failed=progress.failed, waiting=progress.waiting_for_quota, refresh=False)
            bar.update(progress.done - bar.n)

        async with (
            AsyncClient.from_env() as client,
            client.set_time_sensitive_many(requests(on_call), progress=show) as many,
        ):
            async for item in many:
                chat = item.request["feed_card_id"]
                if item.error is not None:
                    bar.write(f"{chat}: {item.error}", file=sys.stderr)
                elif item.outcome is not None:
                    for reason in item.outcome.failed_user_reasons:
                        bar.write(
                            f"{chat}: {reason.user_id or 'a user'}: {reason.error_message}", file=sys.stderr
                        )
    return 1 if (await many.report()).failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
