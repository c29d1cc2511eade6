"""What many calls cost: memory for a million, and the CPU time of the loop's own thread for a result.

    maturin develop --release
    python bench/many.py              # a million requests; --count 20000 for a first look

The stand-in platform runs in a process of its own, without limits, and answers at once; the client does
not pace. Each measurement is a process of its own, too, as a peak of memory is. Nothing else should run
meanwhile. Beside it stands what single calls cost the loop's thread, made by 100 tasks at a time: to start
one, and to await it when its result is there. Exits with 1 where a bar is missed: 10 MB of growth from 1,000
requests on, 5 µs a result, 10 µs an await.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from feishu_feed_card import AsyncClient, Client, Request
from feishu_feed_card.sandbox import Sandbox, Switches

FEW = 1000
MOST_GROWTH_MB = 10
MOST_US = 5.0
MOST_US_AN_AWAIT = 10.0
TASKS = 100
ROUNDS = 100


def requests(count: int) -> Iterator[Request]:
    """All alike: the stand-in has one chat."""
    for _ in range(count):
        yield {"feed_card_id": Sandbox.CHAT, "user_ids": [Sandbox.USER], "time_sensitive": True}


async def async_requests(count: int) -> AsyncIterator[Request]:
    """The same, from an async generator."""
    for request in requests(count):
        yield request


def blocking(client: Client, count: int) -> int:
    """Returns how many succeeded."""
    done = 0
    with client.set_time_sensitive_many(requests(count)) as many:
        for item in many:
            done += item.error is None
    return done


async def on_a_loop(client: AsyncClient, source: Any) -> int:
    """Returns how many succeeded."""
    done = 0
    async with client.set_time_sensitive_many(source) as many:
        async for item in many:
            done += item.error is None
    return done


async def single_calls(client: AsyncClient) -> tuple[float, float]:
    """Returns the CPU time of a call's start and of its await, in µs: each the median of the rounds."""
    starts, awaits = [], []
    async with client:
        for _ in range(ROUNDS):
            began = time.thread_time()
            tasks = [
                asyncio.ensure_future(
                    client.set_time_sensitive(request["feed_card_id"], request["user_ids"], True)
                )
                for request in requests(TASKS)
            ]
            await asyncio.sleep(0)
            started = time.thread_time()
            # The loop stands still until all results are there.
            time.sleep(0.1)  # noqa: ASYNC251
            ready = time.thread_time()
            for task in tasks:
                (await task).raise_for_failed()
            ended = time.thread_time()
            starts.append((started - began) / TASKS * 1e6)
            awaits.append((ended - ready) / TASKS * 1e6)
    return statistics.median(starts), statistics.median(awaits)


def peak_mb() -> float:
    """The most memory that this process ever held. `ru_maxrss` would begin with the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this needs Linux")


def measure(way: str, count: int, base_url: str) -> None:
    """Prints one measurement."""
    options: dict[str, Any] = {"base_url": base_url, "rate_limit": None}
    who = (Sandbox.APP_ID, Sandbox.APP_SECRET)
    if way == "single":
        start, us = asyncio.run(single_calls(AsyncClient(*who, **options)))
        print(json.dumps({"start": start, "us": us}))
        return
    wall, cpu = time.perf_counter(), time.thread_time()
    if way == "sync":
        done = blocking(Client(*who, **options), count)
    else:
        source = requests(count) if way == "async" else async_requests(count)
        done = asyncio.run(on_a_loop(AsyncClient(*who, **options), source))
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
    if done != count:
        raise RuntimeError(f"{done} of {count} succeeded")
    print(json.dumps({"peak": peak_mb(), "us": cpu / count * 1e6, "rate": count / wall}))


def serve() -> None:
    """Runs the stand-in until stdin is closed."""
    limits: Switches = {"per_second": None, "per_minute": None, "keep_requests": 0, "keep_arrivals": 0}
    with Sandbox({"switches": limits}) as sandbox:
        print(sandbox.base_url, flush=True)
        sys.stdin.read()


def main() -> int:
    """Measures all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    if given.measure:
        way, count, base_url = given.measure
        measure(way, int(count), base_url)
        return 0
    this = [sys.executable, __file__]
    server = subprocess.Popen([*this, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    missed = 0
    try:
        base_url = server.stdout.readline().strip()

        def result(way: str, count: int) -> dict[str, float]:
            command = [*this, "--measure", way, str(count), base_url]
            found: dict[str, float] = json.loads(subprocess.check_output(command, text=True))
            return found

        for way in ("sync", "async", "async from async"):
            few, many = result(way, FEW), result(way, given.count)
            growth = many["peak"] - few["peak"]
            missed += growth >= MOST_GROWTH_MB or many["us"] > MOST_US
            print(
                f"{way:>16}: {many['us']:5.2f} µs a result, "
                f"{growth:+6.2f} MB from {FEW:,} to {given.count:,} "
                f"({few['peak']:.1f} to {many['peak']:.1f} MB), {many['rate']:,.0f} results a second",
                flush=True,
            )
        single = result("single", TASKS * ROUNDS)
        missed += single["us"] > MOST_US_AN_AWAIT
        print(
            f"{'single calls':>16}: {single['us']:5.2f} µs an await on a ready result at {TASKS} tasks, "
            f"{single['start']:.2f} µs a start"
        )
    finally:
        server.stdin.close()
        server.wait(10)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
