from gevent import monkey

monkey.patch_all()

import sys

from feishu_feed_card import Client, Outcome
from gevent.pool import Pool

client = Client.from_env()


def pin(chat: str) -> Outcome:
    # Waits in the hub's thread pool; the other greenlets go on.
    return client.set_time_sensitive(chat, [user], True)


user, *chats = sys.argv[1:]
for outcome in Pool(10).imap_unordered(pin, chats):
    print(outcome.ok)
