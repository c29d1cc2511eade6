"""Pins the chats in a CSV file with the columns `chat` and `user`: remind.py FILE."""

import csv
import sys
from collections.abc import Iterator

from feishu_feed_card import Client, DeadlineExceededError, Request


def requests(path: str) -> Iterator[Request]:
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {"feed_card_id": row["chat"], "user_ids": [row["user"]], "time_sensitive": True}


def main() -> int:
    failed = 0
    with (
        Client.from_env() as client,
        # 3,000 calls take about 2.5 minutes. Stop before cron starts the next run.
        client.set_time_sensitive_many(requests(sys.argv[1]), total_timeout=600) as many,
    ):
        try:
            for item in many:
                if item.error or not item.outcome.ok:
                    failed += 1
                    print(item.request["feed_card_id"], item.error or item.outcome.failed_user_reasons)
        except DeadlineExceededError as error:
            failed += 1
            print(error)
        print(many.report())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
