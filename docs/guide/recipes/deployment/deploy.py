"""Pins a chat while a command runs: deploy.py CHAT USER[,USER...] COMMAND [ARGUMENT...]."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from feishu_feed_card import Client, FeedCardError


@contextmanager
def pinned(client: Client, chat: str, users: list[str]) -> Iterator[None]:
    try:
        client.set_time_sensitive(chat, users, True, timeout=10)
    except FeedCardError as error:
        # A reminder that fails should not stop a deployment.
        print(f"not pinned: {error}", file=sys.stderr)
    try:
        yield
    finally:
        # Also after a pin that timed out: it may still arrive.
        client.set_time_sensitive(chat, users, False, timeout=30)


def main() -> int:
    chat, users, *command = sys.argv[1:]
    with Client.from_env() as client, pinned(client, chat, users.split(",")):
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
