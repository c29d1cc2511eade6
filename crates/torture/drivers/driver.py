"""The drivers in Python: blocking calls from a thread for each lane, or tasks on one event loop.

The first line of input says what kind of client, every further one is a round of calls; a line of answers
comes back for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from feishu_feed_card import AsyncClient, Client, DeadlineExceededError, FeedCardError

LISTS = ("reached", "failed", "unknown", "not_attempted")


def client_options(options):
    return {
        "app_id": options["app_id"],
        "app_secret": options["app_secret"],
        "base_url": options["base_url"],
        "allow_http": options["allow_http"],
        "rate_limit": (options["per_second"], options["per_minute"]),
        "late_arrival": options["late_arrival_ms"] / 1000,
        "timeout": options["timeout_ms"] / 1000,
        "max_users_per_request": options["max_users_per_request"],
    }


def answer(came_back, kind=None):
    return {name: list(getattr(came_back, name)) for name in LISTS} | {"kind": kind}


def foreign(error):
    return {"foreign": repr(error)}


def all_foreign(error, answers):
    """The result of calls whose loop raises."""
    return [said or foreign(error) for said in answers]


def not_all_read():
    """Ignores the error of a loop that did not read all requests in time. The report has the results."""
    return contextlib.suppress(DeadlineExceededError)


def took(answer, began):
    return answer | {"took_ms": int((time.monotonic() - began) * 1000)}


def request(call):
    keys = {"feed_card_id": call["chat"], "user_ids": call["users"], "time_sensitive": call["state"]}
    return keys if call["timeout_ms"] is None else keys | {"timeout": call["timeout_ms"] / 1000}


def method(client, call):
    """The method to call, and its arguments."""
    keys = request(call)
    if keys["feed_card_id"] is None:
        del keys["feed_card_id"]
        return client.set_bot_time_sensitive, keys
    return client.set_time_sensitive, keys


def of_item(item):
    return answer(item.outcome) if item.error is None else answer(item.error, item.error.kind)


def of_report(answers, report, calls):
    for item in report.unread:
        answers[item.index] = of_item(item)
    for left in report.unfinished:
        answers[left.index] = answer(left, "STOPPED")
    for index in range(report.taken, len(calls)):
        answers[index] = {"not_attempted": sorted(set(calls[index]["users"])), "kind": "STOPPED"}


class Blocking:
    def __init__(self, options):
        self.client = Client(**client_options(options))
        self.many_timeout = options["many_timeout_ms"] / 1000

    def play(self, script):
        with ThreadPoolExecutor(len(script)) as threads:
            return list(threads.map(self.lane, script))

    def lane(self, groups):
        return [self.many(group) if group["many"] else [*map(self.call, group["calls"])] for group in groups]

    def call(self, call):
        began = time.monotonic()
        call_it, keys = method(self.client, call)
        try:
            said = answer(call_it(**keys))
        except FeedCardError as error:
            said = answer(error, error.kind)
        except Exception as error:
            said = foreign(error)
        return took(said, began)

    def many(self, group):
        began = time.monotonic()
        calls, leave_after = group["calls"], group["many"]["leave_after"]
        answers = [None] * len(calls)
        try:
            with self.client.set_time_sensitive_many(
                map(request, calls), total_timeout=self.many_timeout
            ) as many:
                with not_all_read():
                    for read, item in enumerate(many, 1):
                        answers[item.index] = of_item(item)
                        if read == leave_after:
                            break
                of_report(answers, many.report(), calls)
        except Exception as error:
            answers = all_foreign(error, answers)
        return [said and took(said, began) for said in answers]

    def close(self):
        self.client.close()


class OnALoop:
    def __init__(self, options):
        self.loop = asyncio.new_event_loop()
        self.client = AsyncClient(**client_options(options))
        self.many_timeout = options["many_timeout_ms"] / 1000

    def play(self, script):
        return self.loop.run_until_complete(self.lanes(script))

    async def lanes(self, script):
        return await asyncio.gather(*map(self.lane, script))

    async def lane(self, groups):
        return [await self.many(group) if group["many"] else await self.at_once(group) for group in groups]

    async def at_once(self, group):
        # Tasks begin in the order they are made.
        return await asyncio.gather(*map(self.call, group["calls"]))

    async def call(self, call):
        began = time.monotonic()
        call_it, keys = method(self.client, call)
        task = asyncio.current_task()
        timer = call["cancel_ms"] is not None and self.loop.call_later(call["cancel_ms"] / 1000, task.cancel)
        try:
            said = answer(await call_it(**keys))
        except asyncio.CancelledError:
            said = {"cancelled": True}
        except FeedCardError as error:
            said = answer(error, error.kind)
        except Exception as error:
            said = foreign(error)
        finally:
            if timer:
                timer.cancel()
        return took(said, began)

    async def many(self, group):
        began = time.monotonic()
        calls, leave_after = group["calls"], group["many"]["leave_after"]
        answers = [None] * len(calls)
        try:
            async with self.client.set_time_sensitive_many(
                map(request, calls), total_timeout=self.many_timeout
            ) as many:
                read = 0
                with not_all_read():
                    async for item in many:
                        answers[item.index] = of_item(item)
                        read += 1
                        if read == leave_after:
                            break
                of_report(answers, await many.report(), calls)
        except Exception as error:
            answers = all_foreign(error, answers)
        return [said and took(said, began) for said in answers]

    def close(self):
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()


def main():
    options = json.loads(sys.stdin.readline())
    driver = {"sync": Blocking, "async": OnALoop}[sys.argv[1]](options)
    for line in sys.stdin:
        answers = json.dumps(driver.play(json.loads(line)))
        # Before the results are printed, because then the process's memory is measured.
        gc.collect()
        print(answers, flush=True)
    driver.close()


main()
