"""Pins a chat for some users: pinner CHAT USER [USER...]."""

import sys

from feishu_feed_card import Client

chat, *users = sys.argv[1:]
with Client.from_env() as client:
    outcome = client.set_time_sensitive(chat, users, True)
print("reached", *outcome.reached)
sys.exit(0 if outcome.ok else 1)
