"""Draws the chart of the guide's page about the quota, from a real run of 3,000 calls on the sandbox.

    python docs/guide/charts/quota.py

Takes two and a half minutes. Needs the package `feishu-feed-card`, and writes a `quota.svg` for each language
of the guide. The colours have a medium lightness, so that light and dark themes both show them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from feishu_feed_card.sandbox import Sandbox

GUIDE = Path(__file__).parents[1]
CALLS = 3000
LATENCY_MS = 100

LABELS = {
    "en": ("calls made", "seconds since the start", "50 a second", "waits for the minute"),
    "zh": ("已发出的调用", "开始后的秒数", "每秒 50 次", "等待满一分钟"),
}

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 40, 44
GREY, BLUE = "#7c7c7c", "#3f85c4"


def measure() -> list[float]:
    """Makes the calls; returns when each reached the platform, in seconds since the first."""
    with Sandbox() as sandbox:
        sandbox.faults([{"on": "call", "times": 0, "delay_after_ms": LATENCY_MS}])
        request = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}
        started = time.monotonic()
        with sandbox.client() as client:
            items, report = client.set_time_sensitive_many([request] * CALLS).collect()
        took = time.monotonic() - started
        assert all(item.outcome and item.outcome.ok for item in items)
        in_second, in_minute = sandbox.max_in_window("group", 1), sandbox.max_in_window("group", 60)
        refused = sandbox.state()["over_limit"]
        assert (in_second, in_minute, refused) == (50, 1000, 0), (in_second, in_minute, refused)
        print(f"{report}, in {took:.1f} s; at most {in_second} in a second and {in_minute} in a minute")
        calls = [seen for seen in sandbox.requests() if seen["method"] == "PATCH"]
    arrived = sorted(seen["arrived_ms"] / 1000 for seen in calls if seen["arrived_ms"] is not None)
    return [at - arrived[0] for at in arrived]


def draw(arrived: list[float], labels: tuple[str, str, str, str]) -> str:
    """Returns the chart: the number of calls that have reached the platform, over time."""
    end = (int(arrived[-1]) // 10 + 1) * 10
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(at: float) -> float:
        return LEFT + at * (right - LEFT) / end

    def y(calls: int) -> float:
        return bottom - calls * (bottom - TOP) / CALLS

    title, axis, fast, waiting = labels
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        f' font-size="13" fill="{GREY}">',
        f'<text x="{LEFT}" y="20">{title}</text>',
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">{axis}</text>',
    ]
    parts += [
        f'<path d="M{LEFT} {y(calls):.1f}H{right}" stroke="{GREY}" stroke-opacity=".5"/>'
        f'<text x="{LEFT - 8}" y="{y(calls) + 4:.1f}" text-anchor="end">{calls:,}</text>'
        for calls in range(0, CALLS + 1, 1000)
    ]
    parts += [
        f'<text x="{x(second):.1f}" y="{bottom + 18}" text-anchor="middle">{second}</text>'
        for second in range(0, end + 1, 20)
    ]
    # The calls leave in bursts of 50: a step for each.
    points = [(0.0, 0)]
    for count, at in enumerate(arrived, 1):
        if count % 50 == 0:
            points += [(at, count - 50), (at, count)]
    line = "L".join(f"{x(at):.1f} {y(count):.1f}" for at, count in points)
    parts.append(f'<path d="M{line}" fill="none" stroke="{BLUE}" stroke-width="3" stroke-linejoin="round"/>')
    for minute in range(CALLS // 1000 - 1):
        beside, above = y(minute * 1000 + 450), y(minute * 1000 + 1000) - 8
        parts += [
            f'<text x="{x(minute * 60 + 15):.1f}" y="{beside:.1f}">{fast}</text>',
            f'<text x="{x(minute * 60 + 41):.1f}" y="{above:.1f}" text-anchor="middle">{waiting}</text>',
        ]
    parts += ["</svg>", ""]
    return "\n".join(parts)


def main() -> None:
    """Measures once, and draws for each language that the guide has."""
    arrived = measure()
    for language, labels in LABELS.items():
        folder = GUIDE / language / "src"
        if folder.is_dir():
            (folder / "quota.svg").write_text(draw(arrived, labels), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
