"""Forks, exits, signals and closed loops, each in a new process that is killed if it does not end."""

from __future__ import annotations

import multiprocessing

import pytest

import needs
from scripts import prints, run

SETUP = """
import asyncio, gc, os, signal, sys, threading, time
from feishu_feed_card import AsyncClient, Client, FeedCardError
from feishu_feed_card.sandbox import Sandbox

sandbox = Sandbox({"switches": {"per_second": None, "per_minute": None}})
USERS = [sandbox.USER]

def in_flight(count=1):
    deadline = time.monotonic() + 10
    while sandbox.request_count() < count + 1 and time.monotonic() < deadline:
        time.sleep(0.005)
"""


def script(body: str) -> str:
    """A script that starts with `SETUP`."""
    return SETUP + body


def test_exit_with_an_open_client():
    prints(
        script("""
client = sandbox.client()
print(client.set_bot_time_sensitive(USERS, True).ok)
"""),
        "True",
    )


def test_exit_with_async_calls_in_flight():
    ended = run(
        script("""
sandbox.faults([{"on": "call", "delay_before_ms": 20000, "times": 0}])
client = sandbox.async_client()

async def main():
    tasks = [asyncio.create_task(client.set_bot_time_sensitive(USERS, True)) for _ in range(20)]
    while sandbox.request_count() < 5:
        await asyncio.sleep(0.005)
    print("leaving")

asyncio.run(main())
""")
    )
    assert (ended.code, ended.out, ended.err) == (0, "leaving\n", "")
    assert ended.seconds < 5


def test_system_exit_with_async_calls_in_flight():
    ended = run(
        script("""
sandbox.faults([{"on": "call", "delay_before_ms": 20000, "times": 0}])
client = sandbox.async_client()

async def main():
    tasks = [asyncio.create_task(client.set_bot_time_sensitive(USERS, True)) for _ in range(20)]
    while sandbox.request_count() < 5:
        await asyncio.sleep(0.005)
    sys.stdout.flush()
    raise SystemExit(7)

asyncio.run(main())
""")
    )
    assert (ended.code, ended.err) == (7, "")
    assert ended.seconds < 5


@pytest.mark.parametrize("calls", ["slow", "quick"])
def test_exit_with_daemon_threads(calls: str):
    ended = run(
        script(f"""
if {calls == "slow"}:
    sandbox.faults([{{"on": "call", "delay_before_ms": 20000, "times": 0}}])
client = sandbox.client(rate_limit=None)

def work():
    while True:
        client.set_bot_time_sensitive(USERS, True)

for _ in range(8):
    threading.Thread(target=work, daemon=True).start()
in_flight(5)
print("leaving")
""")
    )
    assert (ended.code, ended.out, ended.err) == (0, "leaving\n", "")
    assert ended.seconds < 5


def test_exit_waits_for_other_threads():
    prints(
        script("""
sandbox.faults([{"on": "call", "delay_before_ms": 300}])
client = sandbox.client()

def work():
    print(client.set_bot_time_sensitive(USERS, True).ok)

threading.Thread(target=work).start()
"""),
        "True",
    )


def test_exit_while_a_token_provider_runs():
    ended = run(
        script("""
def provider():
    print("asked", flush=True)
    time.sleep(20)

client = sandbox.client(token_provider=provider)
try:
    client.set_bot_time_sensitive(USERS, True, timeout=0.2)
except TimeoutError:
    print("leaving")
""")
    )
    assert (ended.code, ended.out, ended.err) == (0, "asked\nleaving\n", "")
    assert ended.seconds < 5


def test_a_call_in_an_atexit_handler():
    prints(
        script("""
import atexit
client = sandbox.client()
atexit.register(lambda: print(client.set_bot_time_sensitive(USERS, True).ok))
"""),
        "True",
    )


@pytest.mark.parametrize("first", ["before", "at exit"])
def test_an_async_call_after_the_waker_is_stopped_raises(first: str):
    ended = run(f"""
import asyncio, atexit, time

async def main():
    await client.set_bot_time_sensitive([sandbox.USER], True)

async def many():
    request = {{"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}}
    async for item in client.set_time_sensitive_many([request]):
        print(item)

def at_exit():
    for call in (main, many):
        try:
            asyncio.run(call())
        except RuntimeError as error:
            print(error)

atexit.register(at_exit)
from feishu_feed_card.sandbox import Sandbox
sandbox = Sandbox()
client = sandbox.async_client()
if {first == "before"}:
    asyncio.run(main())
""")
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.count("while the interpreter exits") == 2, ended
    assert ended.seconds < 5


def test_a_call_in_a_finaliser_at_exit():
    prints(
        script("""
class Reminder:
    def __init__(self):
        self.client = sandbox.client()

    def __del__(self):
        print(self.client.set_bot_time_sensitive(USERS, False, timeout=2).ok)

reminder = Reminder()
print(reminder.client.set_bot_time_sensitive(USERS, True).ok)
"""),
        "True\nTrue",
    )


@needs.sigint
@pytest.mark.parametrize(
    "wait",
    [
        pytest.param('{"on": "call", "delay_before_ms": 20000}', id="answer"),
        pytest.param('{"on": "token", "delay_before_ms": 2000}', id="token"),
    ],
)
def test_ctrl_c_ends_a_blocking_call(wait: str):
    ended = run(
        script(f"""
sandbox.faults([{wait}])
client = sandbox.client()
print("calling", flush=True)
try:
    client.set_time_sensitive(sandbox.CHAT, USERS, True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(0.5)
    print(sandbox.pinned(sandbox.USER), client.set_bot_time_sensitive(USERS, True).ok)
    os._exit(0)
"""),
        interrupt_at="calling",
    )
    assert (ended.code, ended.out, ended.err) == (0, "calling\ninterrupted\n[] True\n", "")


@needs.alarm
def test_ctrl_c_ends_a_call_within_100_ms():
    ended = run(
        script("""
sandbox.faults([{"on": "call", "delay_before_ms": 20000}])
client = sandbox.client()
pressed = 0.0

def on_alarm(*_):
    signal.raise_signal(signal.SIGINT)

waits = []
for _ in range(5):
    sandbox.faults([{"on": "call", "delay_before_ms": 20000}])
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.15)
    started = time.monotonic()
    try:
        client.set_time_sensitive(sandbox.CHAT, USERS, True)
    except KeyboardInterrupt:
        waits.append(time.monotonic() - started - 0.15)
print(len(waits), max(waits) < 0.1, waits if max(waits) >= 0.1 else "")
""")
    )
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.startswith("5 True"), ended.out


@needs.sigint
def test_ctrl_c_ends_a_wait_for_the_quota():
    ended = run(
        script("""
client = sandbox.client(rate_limit=(1, 1))
client.set_bot_time_sensitive(USERS, True)
print("calling", flush=True)
try:
    client.set_bot_time_sensitive(USERS, True, timeout=300)
except KeyboardInterrupt:
    print("interrupted")
"""),
        interrupt_at="calling",
    )
    assert (ended.code, ended.out) == (0, "calling\ninterrupted\n"), ended
    assert ended.after_signal < 3


@needs.sigint
def test_ctrl_c_ends_asyncio_run():
    ended = run(
        script("""
sandbox.faults([{"on": "call", "delay_before_ms": 20000}])

async def main():
    print("calling", flush=True)
    try:
        await sandbox.async_client().set_bot_time_sensitive(USERS, True)
    except asyncio.CancelledError:
        print("cancelled")
        raise

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""),
        interrupt_at="calling",
    )
    assert (ended.code, ended.out) == (0, "calling\ncancelled\ninterrupted\n"), ended


@needs.alarm
def test_a_signal_handler_may_call():
    prints(
        script("""
sandbox.faults([{"on": "call", "delay_before_ms": 400}])
client = sandbox.client()
signal.signal(signal.SIGALRM, lambda *_: print(client.set_bot_time_sensitive(USERS, False).ok))
signal.setitimer(signal.ITIMER_REAL, 0.1)
print(client.set_time_sensitive(sandbox.CHAT, USERS, True).ok)
"""),
        "True\nTrue",
    )


FORK = """
def in_child(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            work()
            sys.stdout.flush()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@needs.fork
def test_a_forked_child_can_use_its_parents_client():
    prints(
        script(
            FORK
            + """
client = sandbox.client()
print(client.set_bot_time_sensitive(USERS, True).ok)

def work():
    for _ in range(3):
        print(client.set_bot_time_sensitive(USERS, True).ok)
    in_grandchild = in_child(lambda: print("grandchild", client.set_bot_time_sensitive(USERS, True).ok))
    print(in_grandchild)

print(in_child(work))
print(client.set_bot_time_sensitive(USERS, True).ok)
"""
        ),
        "True\nTrue\nTrue\nTrue\ngrandchild True\n0\n0\nTrue",
    )


@needs.fork
def test_a_fork_before_the_first_call():
    prints(
        script(
            FORK
            + """
client = sandbox.client()
print(in_child(lambda: print(client.set_bot_time_sensitive(USERS, True).ok)))
print(client.set_bot_time_sensitive(USERS, True).ok)
"""
        ),
        "True\n0\nTrue",
    )


@needs.fork
def test_a_fork_while_other_threads_make_calls():
    ended = run(
        script(
            FORK
            + """
client = sandbox.client(rate_limit=None)
shared = sandbox.client(quota=sandbox.client(rate_limit=(1000, 1000)).quota)
stop = False

def busy(client):
    while not stop:
        client.set_bot_time_sensitive(USERS, True)

workers = [threading.Thread(target=busy, args=(c,), daemon=True) for c in (client, client, shared)]
for worker in workers:
    worker.start()
in_flight(20)

def work():
    assert client.set_bot_time_sensitive(USERS, True).ok
    assert shared.set_bot_time_sensitive(USERS, True).ok

codes = [in_child(work) for _ in range(20)]
stop = True
print(codes == [0] * 20, codes if any(codes) else "")
os._exit(0)
"""
        )
    )
    # stderr is not checked: since Python 3.12, a fork in a process with threads prints a warning.
    assert ended.out.startswith("True"), ended


SLOW_IMPORT = """
class SlowImport:
    def find_spec(self, name, path=None, target=None):
        if name == slow:
            imports.append(name)
            time.sleep(0.5)

imports = []
sys.meta_path.insert(0, SlowImport())

def call():
    try:
        client.set_bot_time_sensitive(USERS, True, timeout=2, **listening)
    except FeedCardError as error:
        return error.kind
    return "done"
"""
FIRST_USES = [
    pytest.param(
        "slow, listening = 'feishu_feed_card._logging', {'on_event': lambda event: None}\n"
        "client = sandbox.client()",
        "done",
        id="on_event",
    ),
    pytest.param(
        "slow, listening = 'feishu_feed_card._provider', {}\n"
        "client = sandbox.client(token_provider=lambda: 't-wrong', max_retries=0)",
        "AUTHENTICATION",
        id="token_provider",
    ),
]


@needs.fork
@pytest.mark.parametrize(("setup", "ends"), FIRST_USES)
def test_a_fork_while_another_thread_makes_its_first_call(setup: str, ends: str):
    prints(
        script(
            FORK
            + SLOW_IMPORT
            + f"""
{setup}
first = threading.Thread(target=call)
first.start()
time.sleep(0.2)
print(in_child(lambda: print(call())))
first.join()
"""
        ),
        f"{ends}\n0",
    )


@needs.alarm
@pytest.mark.parametrize(("setup", "ends"), FIRST_USES)
def test_a_signal_handler_may_call_during_the_first_call(setup: str, ends: str):
    prints(
        script(
            SLOW_IMPORT
            + f"""
signal.signal(signal.SIGALRM, lambda *_: print("handler", call(), flush=True))
{setup}
signal.setitimer(signal.ITIMER_REAL, 0.2)
print(call())
time.sleep(0.3)
"""
        ),
        f"{ends}\nhandler {ends}",
    )


@needs.fork
def test_a_fork_inside_a_loop_with_calls_in_flight():
    prints(
        script(
            FORK
            + """
client = sandbox.async_client()

async def child():
    outcomes = await asyncio.gather(*(client.set_bot_time_sensitive(USERS, True) for _ in range(5)))
    print(all(outcome.ok for outcome in outcomes))

async def main():
    sandbox.faults([{"on": "call", "delay_before_ms": 500}])
    task = asyncio.create_task(client.set_time_sensitive(sandbox.CHAT, USERS, True))
    while sandbox.request_count() < 2:
        await asyncio.sleep(0.005)
    print(in_child(lambda: threading.Thread(target=asyncio.run, args=(child(),)).run()))
    print((await task).ok)

def in_new_loop():
    asyncio.events._set_running_loop(None)
    asyncio.run(child())

asyncio.run(main())
"""
        ),
        "True\n0\nTrue",
    )


@needs.fork
def test_a_forked_child_can_drop_inherited_objects():
    prints(
        script(
            FORK
            + """
import warnings
warnings.simplefilter("ignore", ResourceWarning)  # the loop is left open on purpose
client = sandbox.client()
other = sandbox.async_client()
client.set_bot_time_sensitive(USERS, True)
asyncio.run(other.set_bot_time_sensitive(USERS, True))
loop = asyncio.new_event_loop()
sandbox.faults([{"on": "call", "delay_before_ms": 20000}])
task = loop.create_task(other.set_bot_time_sensitive(USERS, True))
loop.run_until_complete(asyncio.sleep(0.1))

def work():
    global client, other, loop, task, sandbox
    client.close()
    task._log_destroy_pending = False
    del client, other, loop, task, sandbox
    gc.collect()
    print("dropped")

print(in_child(work))
print(client.set_bot_time_sensitive(USERS, True, timeout=5).ok)
task._log_destroy_pending = False
"""
        ),
        "dropped\n0\nTrue",
    )


@needs.fork
def test_a_forked_child_cannot_control_its_parents_sandbox():
    prints(
        script(
            FORK
            + """
def work():
    try:
        sandbox.state()
    except RuntimeError as error:
        print(error)
    sandbox.close()

print(in_child(work))
print(sandbox.request_count())
"""
        ),
        "this sandbox belongs to the process that created it; this process was forked from it\n0\n0",
    )


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_calls_in_a_multiprocessing_pool(method: str, tmp_path):
    file = tmp_path / "main.py"
    file.write_text(
        SETUP.replace("sandbox = ", "sandbox = __name__ == '__main__' and ").replace(
            "USERS = [sandbox.USER]", "USERS = [Sandbox.USER]"
        )
        + f"""
import multiprocessing

client = None

def work(base_url):
    global client
    if client is None:
        client = Client("cli_example", "example-secret", base_url=base_url)
    return client.set_bot_time_sensitive(USERS, True)

if __name__ == "__main__":
    client = sandbox.client()
    client.set_bot_time_sensitive(USERS, True)
    with multiprocessing.get_context("{method}").Pool(3) as pool:
        outcomes = pool.map_async(work, [sandbox.base_url] * 12).get(25)
    print(all(outcome.ok for outcome in outcomes), sandbox.request_count() >= 14)
    print(client.set_bot_time_sensitive(USERS, True).ok)
"""
    )
    prints(
        f"""
import subprocess, sys
sys.exit(subprocess.run([sys.executable, {str(file)!r}], timeout=25).returncode)
""",
        "True True\nTrue",
    )


@pytest.mark.parametrize("first", ["main", "sub"])
def test_a_subinterpreter_is_refused_and_the_main_one_still_works(first: str):
    ended = run(f"""
import asyncio
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

def in_main():
    from feishu_feed_card.sandbox import Sandbox
    with Sandbox() as sandbox:
        users, listening = [sandbox.USER], {{"on_event": lambda event: None}}
        print(sandbox.client().set_bot_time_sensitive(users, True, **listening).ok)
        print(asyncio.run(sandbox.async_client().set_bot_time_sensitive(users, True, **listening)).ok)

if {first == "main"}:
    in_main()
one = interpreters.create()
interpreters.run_string(one, "try: import feishu_feed_card\\nexcept ImportError as error: print(error)")
interpreters.destroy(one)
in_main()
""")
    refused = "module feishu_feed_card._native does not support loading in subinterpreters"
    expected = ["True", "True"] * (first == "main") + [refused, "True", "True"]
    assert (ended.code, ended.out.splitlines(), ended.err) == (0, expected, ""), ended
