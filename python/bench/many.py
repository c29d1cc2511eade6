"""Measures many calls: peak memory for a million requests, and CPU time per result in the calling thread.

    maturin develop --release
    python bench/many.py              # a million requests; --count 20000 for a quick run

The sandbox runs in a separate process, without limits, and answers immediately. The client has no rate limit.
Each measurement runs in a new process, because peak memory is counted per process. Run nothing else
meanwhile. The last line is about single calls, made by 100 tasks at a time: the CPU time of starting a call,
and of awaiting it when its result is available. Exits with 1 if a limit is exceeded: 10 MB of growth beyond
1,000 requests, 5 µs per result, 10 µs per await.
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
MOST_US_PER_AWAIT = 10.0
TASKS = 100
ROUNDS = 100


def requests(count: int) -> Iterator[Request]:
    """Yields equal requests, because the sandbox has one chat."""
    for _ in range(count):
        yield {"feed_card_id": Sandbox.CHAT, "user_ids": [Sandbox.USER], "time_sensitive": True}


async def async_requests(count: int) -> AsyncIterator[Request]:
    """Yields the same requests from an async generator."""
    for request in requests(count):
        yield request


def blocking(client: Client, count: int) -> int:
    """Returns the number of successful requests."""
    done = 0
    with client.set_time_sensitive_many(requests(count)) as many:
        for item in many:
            done += item.error is None
    return done


async def on_a_loop(client: AsyncClient, source: Any) -> int:
    """Returns the number of successful requests."""
    done = 0
    async with client.set_time_sensitive_many(source) as many:
        async for item in many:
            done += item.error is None
    return done


async def single_calls(client: AsyncClient) -> tuple[float, float]:
    """Returns the CPU time of starting and of awaiting a call in µs, each as the median of all rounds."""
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
            # Blocks the loop until all results are available.
            time.sleep(0.1)  # noqa: ASYNC251
            ready = time.thread_time()
            for task in tasks:
                (await task).raise_for_failed()
            ended = time.thread_time()
            starts.append((started - began) / TASKS * 1e6)
            awaits.append((ended - ready) / TASKS * 1e6)
    return statistics.median(starts), statistics.median(awaits)


def peak_mb() -> float:
    """Returns this process's peak memory in MB. `ru_maxrss` would include the parent's peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory can be measured on Linux only")


def measure(way: str, count: int, base_url: str) -> None:
    """Runs one measurement and prints it as JSON."""
    options: dict[str, Any] = {"base_url": base_url, "rate_limit": None}
    app = (Sandbox.APP_ID, Sandbox.APP_SECRET)
    if way == "single":
        start, us = asyncio.run(single_calls(AsyncClient(*app, **options)))
        print(json.dumps({"start": start, "us": us}))
        return
    wall, cpu = time.perf_counter(), time.thread_time()
    if way == "sync":
        done = blocking(Client(*app, **options), count)
    else:
        source = requests(count) if way == "async" else async_requests(count)
        done = asyncio.run(on_a_loop(AsyncClient(*app, **options), source))
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
    if done != count:
        raise RuntimeError(f"{done} of {count} succeeded")
    print(json.dumps({"peak": peak_mb(), "us": cpu / count * 1e6, "rate": count / wall}))


def serve() -> None:
    """Runs the sandbox until stdin is closed."""
    limits: Switches = {"per_second": None, "per_minute": None, "keep_requests": 0, "keep_arrivals": 0}
    with Sandbox({"switches": limits}) as sandbox:
        print(sandbox.base_url, flush=True)
        sys.stdin.read()


def main() -> int:
    """Runs all measurements and prints their results."""
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
                f"{way:>16}: {many['us']:5.2f} µs per result, "
                f"{growth:+6.2f} MB from {FEW:,} to {given.count:,} "
                f"({few['peak']:.1f} to {many['peak']:.1f} MB), {many['rate']:,.0f} results per second",
                flush=True,
            )
        single = result("single", TASKS * ROUNDS)
        missed += single["us"] > MOST_US_PER_AWAIT
        print(
            f"{'single calls':>16}: {single['us']:5.2f} µs per await of an available result, {TASKS} tasks, "
            f"{single['start']:.2f} µs per start"
        )
    finally:
        server.stdin.close()
        server.wait(10)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
