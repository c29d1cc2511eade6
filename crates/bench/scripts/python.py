"""The callers in Python: python.py CALLER BASE_URL.

For each line of input `IN_FLIGHT SECONDS TAG` makes calls, from that many threads or tasks, and says how
many and how long they took. Each call goes to a chat of its own, and its answer is read.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time

USER = "ou_bench"
BODY = {"time_sensitive": True, "user_ids": [USER]}
HEADERS = {
    "Authorization": "Bearer t-benchmarks00000000000000000000000000000",
    "Content-Type": "application/json; charset=utf-8",
}
caller, base_url = sys.argv[1:]


def path(chat):
    return f"/open-apis/im/v2/feed_cards/{chat}?user_id_type=open_id"


def url(chat):
    return base_url + path(chat)


def check(ok):
    if not ok:
        raise SystemExit("not a success")


def options():
    return {
        "app_id": "cli_bench",
        "app_secret": "benchmarks0000000000000000000000",
        "base_url": base_url,
        "rate_limit": (1_000_000, 60_000_000),
    }


def feed_card():
    from feishu_feed_card import Client

    client = Client(**options())

    def make():
        return lambda chat: check(client.set_time_sensitive(chat, [USER], True).ok)

    make.client = client
    return make


def http_client():
    import http.client
    import json

    host = base_url.removeprefix("http://")

    def make():
        connection = http.client.HTTPConnection(host)

        def call(chat):
            connection.request("PATCH", path(chat), json.dumps(BODY), HEADERS)
            check(json.loads(connection.getresponse().read())["code"] == 0)

        return call

    return make


def requests():
    import requests

    def make():
        session = requests.Session()
        session.trust_env = False
        return lambda chat: check(session.patch(url(chat), json=BODY, headers=HEADERS).json()["code"] == 0)

    return make


def httpx():
    import httpx

    def make():
        client = httpx.Client(trust_env=False)
        return lambda chat: check(client.patch(url(chat), json=BODY, headers=HEADERS).json()["code"] == 0)

    return make


def lark_request(chat):
    from lark_oapi.api.im.v2 import PatchFeedCardRequest, PatchFeedCardRequestBody

    body = PatchFeedCardRequestBody.builder().time_sensitive(True).user_ids([USER]).build()
    request = PatchFeedCardRequest.builder().feed_card_id(chat).user_id_type("open_id")
    return request.request_body(body).build()


def lark_client():
    import lark_oapi

    builder = lark_oapi.Client.builder().app_id("cli_bench").app_secret("benchmarks0000000000000000000000")
    client = builder.domain(base_url).build()
    return client.im.v2.feed_card


def lark_oapi():
    cards = lark_client()

    def make():
        return lambda chat: check(cards.patch(lark_request(chat)).code == 0)

    return make


async def feed_card_async():
    from feishu_feed_card import AsyncClient

    client = AsyncClient(**options())

    async def call(chat):
        check((await client.set_time_sensitive(chat, [USER], True)).ok)

    call.client = client
    return call


async def httpx_async():
    import httpx

    client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None), timeout=60)

    async def call(chat):
        check((await client.patch(url(chat), json=BODY, headers=HEADERS)).json()["code"] == 0)

    return call


async def aiohttp_async():
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def call(chat):
        async with session.patch(url(chat), json=BODY, headers=HEADERS) as answer:
            check((await answer.json())["code"] == 0)

    return call


async def lark_oapi_async():
    cards = lark_client()

    async def call(chat):
        check((await cards.apatch(lark_request(chat))).code == 0)

    return call


def pins(tag, end):
    number = 0
    while time.perf_counter() < end:
        yield {"feed_card_id": f"oc_{tag}_{number}", "user_ids": [USER], "time_sensitive": True}
        number += 1


def from_threads(make, in_flight, end, tag):
    if in_flight == "many":
        calls = 0
        with make.client.set_time_sensitive_many(pins(tag, end)) as many:
            for item in many:
                check(item.outcome.ok)
                calls += 1
        return calls

    counts = []

    def work(number):
        calls = 0
        while time.perf_counter() < end:
            made[number](f"oc_{tag}_{number}_{calls}")
            calls += 1
        counts.append(calls)

    while len(made) < int(in_flight):
        made.append(make())
    if in_flight == "1":
        work(0)
    else:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(int(in_flight))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts)


async def from_tasks(call, in_flight, end, tag):
    if in_flight == "many":
        calls = 0
        async with call.client.set_time_sensitive_many(pins(tag, end)) as many:
            async for item in many:
                check(item.outcome.ok)
                calls += 1
        return calls

    async def work(number):
        calls = 0
        while time.perf_counter() < end:
            await call(f"oc_{tag}_{number}_{calls}")
            calls += 1
        return calls

    return sum(await asyncio.gather(*map(work, range(int(in_flight)))))


made = []
if caller.endswith("_async"):
    loop = asyncio.new_event_loop()
    call = loop.run_until_complete(globals()[caller]())

    def run(*measure):
        return loop.run_until_complete(from_tasks(call, *measure))

else:
    make = globals()[caller]()

    def run(*measure):
        return from_threads(make, *measure)


for line in sys.stdin:
    in_flight, seconds, tag = line.split()
    began = time.perf_counter()
    calls = run(in_flight, began + float(seconds), tag)
    print(calls, time.perf_counter() - began, flush=True)
