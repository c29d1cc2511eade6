"""Pins the chats listed in a file for the given users, with a progress bar (pip install tqdm).

FEISHU_APP_ID=cli_… FEISHU_APP_SECRET=… python pin_many.py chats.txt ou_… ou_…
"""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from feishu_feed_card import Client, Progress, Request


def main(file: str, *on_call: str) -> int:
    """Returns the exit status: 0 if all users were reached."""
    requests: list[Request] = [
        {"feed_card_id": chat, "user_ids": on_call, "time_sensitive": True}
        for chat in Path(file).read_text().split()
    ]
    with Client.from_env() as client, tqdm(total=len(requests), unit="chat") as bar:

        def show(progress: Progress) -> None:
            bar.set_postfix(failed=progress.failed, seconds_left=progress.eta, refresh=False)
            bar.update(progress.done - bar.n)

        with client.set_time_sensitive_many(requests, progress=show) as many:
            for item in many:
                chat = item.request["feed_card_id"]
                if item.error is not None:
                    bar.write(f"{chat}: {item.error}", file=sys.stderr)
                elif item.outcome is not None:
                    for reason in item.outcome.failed_user_reasons:
                        bar.write(
                            f"{chat}: {reason.user_id or 'a user'}: {reason.error_message}", file=sys.stderr
                        )
    return 1 if many.report().failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
