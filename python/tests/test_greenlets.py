"""Calls under gevent and eventlet do not freeze. Under gevent, other greenlets run during a call."""

from __future__ import annotations

import pytest

from scripts import prints

GEVENT = """
import warnings
warnings.simplefilter("ignore")  # warnings of gevent and eventlet
from gevent import monkey; monkey.patch_all()
import gevent
"""
EVENTLET = """
import warnings
warnings.simplefilter("ignore")  # warnings of gevent and eventlet
import eventlet; eventlet.monkey_patch()
"""
SETUP = """
import logging, sys
records = []
class Handler(logging.Handler):
    def emit(self, record):
        records.append(record)
logging.getLogger().addHandler(Handler())
logging.getLogger().setLevel("DEBUG")
from feishu_feed_card import Client, DeadlineExceededError
from feishu_feed_card.sandbox import Sandbox
sandbox = Sandbox()
"""
CALLS = """
with sandbox.client() as client:
    print(client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).ok)
requests = [{"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}] * 3
with Client(token_provider=lambda: "t-wrong", base_url=sandbox.base_url, max_retries=0) as client:
    try:
        client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
    except Exception as error:
        print(type(error).__name__)
    with client.set_time_sensitive_many(requests) as many:
        print(len([item.error.kind for item in many]))
"""
HANDLED = "print(len(records) > 3, {record.threadName for record in records})"
PRINTED = "True\nAuthenticationError\n3\nTrue {'MainThread'}"


@pytest.mark.parametrize("patched", [GEVENT, EVENTLET], ids=["gevent", "eventlet"])
def test_calls_handlers_and_providers_work_when_patched(patched: str):
    prints(patched + SETUP + CALLS + HANDLED, PRINTED)


SLOW = """
import socket as sockets
from gevent import socket
listener = sockets.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
url = f"http://127.0.0.1:{listener.getsockname()[1]}"  # accepts connections and never responds
from feishu_feed_card import Client, DeadlineExceededError
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.01)
        ticks += 1
gevent.spawn(tick)
client = Client(tenant_access_token="t-1", base_url=url, max_retries=0)
"""


def test_other_greenlets_run_during_a_call_under_gevent():
    prints(
        GEVENT
        + SLOW
        + """
try:
    client.set_time_sensitive("oc_1", ["ou_1"], True, timeout=0.6)
except DeadlineExceededError:
    print("late", ticks > 20)
requests = [{"feed_card_id": "oc_1", "user_ids": ["ou_1"], "time_sensitive": True, "timeout": 0.6}]
ticks = 0
print([item.error.kind for item in client.set_time_sensitive_many(requests)], ticks > 20)
""",
        "late True\n['TIMEOUT'] True",
    )


def test_an_exception_thrown_into_a_greenlet_stops_its_call():
    prints(
        GEVENT
        + SLOW
        + """
import time
started = time.monotonic()
try:
    with gevent.Timeout(0.3):
        client.set_time_sensitive("oc_1", ["ou_1"], True, timeout=20)
except gevent.Timeout:
    print("stopped")
gevent.sleep(0.3)
print(len(gevent.get_hub().threadpool), time.monotonic() - started < 5)
""",
        "stopped\n0 True",
    )


def test_calls_do_not_import_gevent():
    prints(
        SETUP
        + """
with sandbox.client() as client:
    client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
print([name for name in sys.modules if name.startswith(("gevent", "eventlet"))])
""",
        "[]",
    )
