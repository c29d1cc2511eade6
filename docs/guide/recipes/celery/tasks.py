import os

from celery import Celery, Task
from celery.signals import worker_process_init
from feishu_feed_card import Client, FeedCardError

app = Celery("tasks", broker=os.environ.get("BROKER", "redis://localhost"))
client: Client


@worker_process_init.connect
def start(**_: object) -> None:
    # In each worker process, after the fork. They do not know of each other, so each gets its part of the quota:
    # here 4 processes (`--concurrency 4`) share 50 calls a second and 1,000 a minute.
    global client
    client = Client.from_env(rate_limit=(12, 250))


@app.task(bind=True, max_retries=5)
def set_pin(self: Task, chat: str, users: list[str], pin: bool) -> None:
    try:
        client.set_time_sensitive(chat, users, pin)
    except FeedCardError as error:
        if not error.retryable:
            raise
        # Celery sends the task again later. The client itself has made its retries already.
        raise self.retry(countdown=error.retry_after or 60) from error
