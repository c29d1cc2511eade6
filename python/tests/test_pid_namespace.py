"""A forked child may have its parent's process id: each may be the first process of a PID namespace."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child"]

SCRIPT = """
import asyncio, ctypes, logging, os
logging.basicConfig(handlers=[logging.NullHandler()], level="DEBUG")
from feishu_feed_card import AsyncClient
client = AsyncClient(tenant_access_token="t-1", base_url="http://127.0.0.1:9", max_retries=0)
async def make():
    try:
        await client.set_time_sensitive("oc_1", ["ou_1"], True, timeout=5)
    except ConnectionError as error:
        print(os.getpid(), error.reason, flush=True)
def call():
    asyncio.run(make())
call()
CLONE_NEWPID = 0x20000000
assert ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0
child = os.fork()
if child == 0:
    call()
else:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def may_unshare() -> bool:
    try:
        tried = subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10, check=False)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="needs a PID namespace: Linux, root, and unshare of util-linux")
def test_a_child_with_its_parents_process_id_makes_calls():
    command = [*UNSHARE, sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout.split("\n")[:3]) == (0, ["1 refused", "1 refused", "0"]), ended
