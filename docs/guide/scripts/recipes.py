"""Runs the guide's programs that use frameworks, and its first page, with the packages built from the clone.

    python recipes.py --recipes [NAME ...]

The frameworks come from the registries: docs/guide/recipes/requirements.txt and package.json. Each program
runs against a sandbox, and the sandbox must have seen what the program's page says.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from feishu_feed_card.sandbox import Sandbox
from snippets import GUIDE, ROOT, Runtime, blocks_of, is_ours, sandbox_environment

PROGRAMS = GUIDE / "recipes"
SCRATCH = ROOT / ".scratch/recipes"
VENV = SCRATCH / "venv"
NODE = SCRATCH / "node"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = str(BIN / "python")
CHAT, USER = Sandbox.CHAT, Sandbox.USER


# Packages and environments


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Runs a program to its end; returns its output, which is also in the error if it fails."""
    words = [str(word) for word in command]
    env = {**os.environ, **environment}
    done = subprocess.run(
        words,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=900,
    )
    if done.returncode != 0:
        raise FailedError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


class FailedError(Exception):
    """A recipe does not do what its page says."""


def check(condition: bool, what: object) -> None:
    """Fails the recipe."""
    if not condition:
        raise FailedError(f"not as expected: {what}")


def build() -> None:
    """Builds a wheel and npm tarballs of the clone, without optimization."""
    wheels = SCRATCH / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    maturin = Path(sys.executable).parent / "maturin"
    run(maturin, "build", "--locked", "--out", wheels, cwd=ROOT / "python")
    run("node", "scripts/pack.mjs", cwd=ROOT / "node")


def install() -> None:
    """Installs the frameworks if they have changed, and the packages of the clone."""
    wanted = (PROGRAMS / "requirements.txt").read_text() + (PROGRAMS / "package.json").read_text()
    stamp = SCRATCH / "wanted"
    if not stamp.exists() or stamp.read_text() != wanted:
        run(sys.executable, "-m", "venv", "--clear", VENV)
        run(PYTHON, "-m", "pip", "install", "--quiet", "--requirement", PROGRAMS / "requirements.txt")
        NODE.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROGRAMS / "package.json", NODE)
        run("npm", "install", "--no-audit", "--no-fund", "--silent", cwd=NODE)
        stamp.write_text(wanted)
    wheel = next((SCRATCH / "wheels").glob("*.whl"))
    run(PYTHON, "-m", "pip", "install", "--quiet", "--no-index", "--force-reinstall", wheel)
    modules = NODE / "node_modules"
    for tarball in sorted((ROOT / "node/packed").glob("*.tgz")):
        with tarfile.open(tarball) as packed:
            manifest = json.load(packed.extractfile("package/package.json"))
            folder = modules / manifest["name"]
            shutil.rmtree(folder, ignore_errors=True)
            packed.extractall(SCRATCH / "unpacked", filter="data")
        shutil.move(SCRATCH / "unpacked/package", folder)


def third_party(*, built: bool) -> Runtime:
    """What executes the blocks of the guide that use packages of others."""
    if not built:
        build()
        install()
    return Runtime(NODE / "blocks", PYTHON, [str(BIN)])


# What the recipes share


class Recipe:
    """A copy of a recipe's folder, in which Node finds the frameworks, and a sandbox."""

    def __init__(self, name: str, sandbox: Sandbox) -> None:
        self.folder = NODE / "run" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(PROGRAMS / name, self.folder)
        self.sandbox = sandbox
        self.environment = {name: value for name, value in os.environ.items() if not is_ours(name)}
        self.environment |= sandbox_environment(sandbox)
        self.environment["PATH"] = os.pathsep.join([str(BIN), os.environ["PATH"]])

    def run(self, *command: str | Path, code: int = 0, **environment: str) -> str:
        """Runs a program to its end, which must have this exit code; returns its output."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=600,
        )
        if done.returncode != code:
            raise FailedError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    @contextlib.contextmanager
    def running(self, *command: str, **environment: str) -> Iterator[None]:
        """Runs a program for as long as the block lasts; shows its output if the block fails."""
        log = self.folder / "log.txt"
        with log.open("w") as output:
            program = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield
        except BaseException:
            print(log.read_text(encoding="utf-8"))
            raise
        finally:
            program.terminate()
            try:
                program.wait(20)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

    def pinned(self) -> bool:
        """Whether the example user has the example chat pinned."""
        return self.sandbox.pinned(USER) == [CHAT]


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise FailedError(f"not after {seconds:.0f} s: {what}")
        time.sleep(0.1)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def post(url: str, body: object) -> tuple[int, dict[str, object]]:
    """Posts JSON; returns the status and the JSON of the response."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def listens(port: int) -> bool:
    """Whether something listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def try_alerts(recipe: Recipe, port: int, on_call: str, path: str = "/alerts") -> None:
    """Sends an alert, its end, and one for an unknown chat, to a server that is starting."""
    until(lambda: listens(port), "the server listens")
    url = f"http://127.0.0.1:{port}{path}"
    for firing in (True, False):
        response = post(url, {"chat": CHAT, on_call: [USER], "firing": firing})
        check(response == (200, {"reached": [USER], "failed": []}), response)
        check(recipe.pinned() == firing, recipe.sandbox.state())
    status, error = post(url, {"chat": "oc_unknown", on_call: [USER], "firing": True})
    check(status == 502 and bool({"platform_code", "platformCode"} & error.keys()), (status, error))


class Relay(threading.Thread):
    """A proxy on loopback: HTTP CONNECT with a password, or SOCKS5 without one."""

    def __init__(self, kind: str) -> None:
        super().__init__(daemon=True)
        self.kind = kind
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        """Accepts connections until the process ends."""
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        """Connects a client to what it asks for."""
        with client, contextlib.suppress(OSError):
            target = self.socks(client) if self.kind == "socks" else self.connect(client)
            if target is None:
                return
            self.connections += 1
            with socket.create_connection(target) as server:
                pairs = {client: server, server: client}
                while True:
                    for ready in select.select(list(pairs), [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        pairs[ready].sendall(data)

    @staticmethod
    def connect(client: socket.socket) -> tuple[str, int] | None:
        """Reads a CONNECT request. The user name is `user` and the password `p@ss`."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        if b"Basic dXNlcjpwQHNz" not in head:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return None
        host, port = head.split()[1].decode().rsplit(":", 1)
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        return host, int(port)

    @staticmethod
    def socks(client: socket.socket) -> tuple[str, int]:
        """Reads a greeting and a request of SOCKS5, with an IPv4 address or a name."""
        client.recv(2 + client.recv(2, socket.MSG_PEEK)[1])
        client.sendall(b"\x05\x00")
        kind = client.recv(4)[3]
        host = socket.inet_ntoa(client.recv(4)) if kind == 1 else client.recv(client.recv(1)[0]).decode()
        port = int.from_bytes(client.recv(2), "big")
        client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        return host, port


# The recipes


def fastapi(sandbox: Sandbox) -> None:
    """A real uvicorn."""
    recipe, port = Recipe("fastapi", sandbox), free_port()
    with recipe.running(PYTHON, "-m", "uvicorn", "app:app", "--port", str(port)):
        try_alerts(recipe, port, "on_call")


def fastify(sandbox: Sandbox) -> None:
    """A real server."""
    recipe, port = Recipe("fastify", sandbox), free_port()
    with recipe.running("node", "app.mjs", PORT=str(port)):
        try_alerts(recipe, port, "onCall")


def approval(sandbox: Sandbox) -> None:
    """The bot's chat is unpinned after the last of two decisions."""
    recipe = Recipe("approval", sandbox)
    steps = f"""
from approvals import Approvals
from feishu_feed_card import Client
approvals = Approvals(Client.from_env())
approvals.requested("1", "{USER}")
approvals.requested("2", "{USER}")
approvals.decided("1", "{USER}")
"""
    recipe.run(PYTHON, "-W", "error", "-c", steps)
    check(sandbox.bot_pinned(USER) == [sandbox.APP_ID], sandbox.state())
    recipe.run(PYTHON, "-W", "error", "-c", f'{steps}approvals.decided("2", "{USER}")')
    check(sandbox.bot_pinned(USER) == [], sandbox.state())


def cron(sandbox: Sandbox) -> None:
    """Fewer chats than on the page: 3,000 take three minutes. One of them does not exist."""
    recipe = Recipe("cron", sandbox)
    chats = [f"oc_chat{number}" for number in range(120)]
    for chat in chats:
        sandbox.put_chat({"feed_card_id": chat, "members": [USER]})
    rows = "".join(f"{chat},{USER}\n" for chat in chats)
    (recipe.folder / "chats.csv").write_text(f"chat,user\n{rows}")
    recipe.run(PYTHON, "-W", "error", "remind.py", "chats.csv")
    check(sorted(sandbox.pinned(USER)) == sorted(chats), len(sandbox.pinned(USER)))
    check(sandbox.state()["over_limit"] == 0, sandbox.state()["over_limit"])
    (recipe.folder / "chats.csv").write_text(f"chat,user\n{CHAT},{USER}\noc_unknown,{USER}\n")
    output = recipe.run(PYTHON, "remind.py", "chats.csv", code=1)
    check("oc_unknown" in output, output)


def deployment(sandbox: Sandbox) -> None:
    """The chat is pinned while the command runs, and unpinned also if it fails."""
    recipe = Recipe("deployment", sandbox)
    url = f"{sandbox.base_url}/_sandbox/state"
    look = "import sys, urllib.request; "
    look += f"sys.exit(7 if b'{CHAT}' in urllib.request.urlopen('{url}').read() else 1)"
    recipe.run(PYTHON, "-W", "error", "deploy.py", CHAT, USER, PYTHON, "-c", look, code=7)
    check(not recipe.pinned(), sandbox.state())
    check(len([r for r in sandbox.requests() if r["method"] == "PATCH"]) == 2, sandbox.requests())


def celery(sandbox: Sandbox) -> None:
    """A worker with two processes, and a broker in the file system."""
    recipe = Recipe("celery", sandbox)
    for folder in ("in", "control"):
        (recipe.folder / folder).mkdir()
    options = {"data_folder_in": "in", "data_folder_out": "in", "control_folder": "control"}
    broker = "import tasks; tasks.app.conf.update(broker_url='filesystem://', "
    broker += f"broker_transport_options={options})\n"
    (recipe.folder / "local.py").write_text(f"{broker}app = tasks.app\n")
    with recipe.running(PYTHON, "-m", "celery", "-A", "local", "worker", "--concurrency", "2", "-l", "info"):
        for pin in (True, False):
            send = f"import local, tasks; tasks.set_pin.delay('{CHAT}', ['{USER}'], {pin})"
            recipe.run(PYTHON, "-c", send)
            until(lambda pin=pin: recipe.pinned() == pin, f"pinned is {pin}")


def gevent(sandbox: Sandbox) -> None:
    """Calls overlap: one by one they would take as many seconds as there are chats."""
    recipe = Recipe("gevent", sandbox)
    chats = [f"oc_chat{number}" for number in range(10)]
    for chat in chats:
        sandbox.put_chat({"feed_card_id": chat, "members": [USER]})
    sandbox.faults([{"on": "call", "times": len(chats), "delay_before_ms": 1000}])
    began = time.monotonic()
    output = recipe.run(PYTHON, "pin_all.py", USER, *chats)
    check(output.split() == ["True"] * len(chats), output)
    check(time.monotonic() - began < len(chats) * 0.9, time.monotonic() - began)
    check(sorted(sandbox.pinned(USER)) == sorted(chats), sandbox.state())


def nextjs(sandbox: Sandbox) -> None:
    """The standalone output, moved away from the folder with the frameworks."""
    recipe = Recipe("nextjs", sandbox)
    shutil.copy(NODE / "package.json", recipe.folder)
    quiet = {"NEXT_TELEMETRY_DISABLED": "1"}
    unset = {"FEISHU_APP_ID": "", "FEISHU_APP_SECRET": ""}
    recipe.run("node", NODE / "node_modules/next/dist/bin/next", "build", **quiet, **unset)
    output = recipe.folder / ".next/standalone"
    server = next(file for file in output.rglob("server.js") if "node_modules" not in file.parts)
    moved = SCRATCH / "next"
    shutil.rmtree(moved, ignore_errors=True)
    shutil.copytree(output, moved, symlinks=True)
    port = free_port()
    with recipe.running(
        "node", str(moved / server.relative_to(output)), PORT=str(port), HOSTNAME="127.0.0.1"
    ):
        try_alerts(recipe, port, "onCall", "/api/alerts")


def serverless(sandbox: Sandbox) -> None:
    """The bundle is called twice in one process, as a warm instance is."""
    recipe = Recipe("serverless", sandbox)
    bundle = [
        "--bundle",
        "--platform=node",
        "--format=esm",
        "--external:feishu-feed-card",
        "--outfile=out.mjs",
    ]
    recipe.run(NODE / "node_modules/.bin/esbuild", "handler.mjs", *bundle)
    event = {"body": json.dumps({"chat": CHAT, "onCall": [USER], "firing": True})}
    call = f"""
const {{ handler }} = await import('./out.mjs')
const context = {{ getRemainingTimeInMillis: () => 3000 }}
for (let times = 0; times < 2; times++) console.log((await handler({json.dumps(event)}, context)).statusCode)
"""
    output = recipe.run("node", "--input-type=module", "--eval", call)
    check(output.split() == ["200", "200"], output)
    check(recipe.pinned() and sandbox.token_fetches() == 1, sandbox.state())


def pyinstaller(sandbox: Sandbox) -> None:
    """The program runs without the environment it was built in."""
    recipe = Recipe("pyinstaller", sandbox)
    recipe.run(PYTHON, "-m", "PyInstaller", "--onefile", "--log-level", "WARN", "pinner.py")
    program = recipe.folder / "dist" / ("pinner.exe" if os.name == "nt" else "pinner")
    output = recipe.run(program, CHAT, USER, PATH="/usr/bin:/bin")
    check(output.split() == ["reached", USER] and recipe.pinned(), output)


def proxy(_: Sandbox) -> None:
    """The sandbox's certificate has an authority that nobody knows, as behind a proxy that inspects TLS."""
    relay = Relay("http")
    with Sandbox(https=True) as sandbox:
        recipe = Recipe("proxy", sandbox)
        (recipe.folder / "ca.pem").write_text(sandbox.ca_pem)
        url = f"http://user:p%40ss@127.0.0.1:{relay.port}"
        call = [PYTHON, "-W", "error", "behind_proxy.py", CHAT, USER]
        at = {"FEISHU_BASE_URL": sandbox.https_base_url, "CORPORATE_PROXY": url}
        check(recipe.run(*call, CORPORATE_CA="ca.pem", **at).strip() == "True", "the call")
        check(recipe.pinned() and relay.connections > 0, relay.connections)
        at["CORPORATE_PROXY"] = url.replace("p%40ss", "wrong")
        output = recipe.run(*call, CORPORATE_CA="ca.pem", code=1, **at)
        check(output.startswith("proxy_auth"), output)
    with Sandbox(https=True) as other:
        at = {"FEISHU_BASE_URL": other.https_base_url, "CORPORATE_PROXY": url}
        output = recipe.run(*call, CORPORATE_CA="ca.pem", code=1, **at)
        check(output.startswith("tls_untrusted"), output)


def clash(_: Sandbox) -> None:
    """A SOCKS proxy in place of Clash."""
    relay = Relay("socks")
    with Sandbox() as sandbox:
        recipe = Recipe("clash", sandbox)
        output = recipe.run("node", "behind_clash.mjs", CHAT, USER, CLASH=f"socks5h://127.0.0.1:{relay.port}")
        check(output.strip() == "true" and recipe.pinned() and relay.connections > 0, output)


# The guide's first page


class Registry(http.server.ThreadingHTTPServer):
    """A registry for npm with the packages of the clone and no others."""

    def __init__(self) -> None:
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/").split("?")[0]
                body = registry.tarballs.get(name) or registry.about(name)
                self.send_response(200 if body else 404)
                self.end_headers()
                self.wfile.write(body or b"{}")

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.tarballs = {file.name: file.read_bytes() for file in (ROOT / "node/packed").glob("*.tgz")}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def about(self, name: str) -> bytes | None:
        """What a registry says of a package."""
        for file in self.tarballs:
            with tarfile.open(ROOT / "node/packed" / file) as packed:
                manifest = json.load(packed.extractfile("package/package.json"))
            if manifest["name"] == name:
                version = manifest["version"]
                manifest["dist"] = {"tarball": f"{self.url}/{file}"}
                tags = {"latest": version}
                return json.dumps({"name": name, "dist-tags": tags, "versions": {version: manifest}}).encode()
        return None


def first_page(sandbox: Sandbox, word: str, programs: list[str], **environment: str) -> None:
    """Does what the first page says, with these programs on the machine and the basic ones of a shell."""
    home = SCRATCH / word
    shutil.rmtree(home, ignore_errors=True)
    (home / "bin").mkdir(parents=True)
    (home / "work").mkdir()
    for name in [*programs, "sh", "ls", "cat", "env", "uname", "dirname", "readlink", "basename"]:
        if program := shutil.which(name):
            (home / "bin" / name).symlink_to(Path(program).resolve() if name in programs else program)
    environment |= {"PATH": str(home / "bin"), "HOME": str(home), "LANG": "C.UTF-8"}
    for page in ("en", "zh"):
        commands = 0
        for block in blocks_of(GUIDE / page / "src/getting-started.md"):
            name = next((w.removeprefix("file=") for w in block.words if w.startswith("file=")), None)
            if name:
                (home / "work" / name).write_text(block.code, encoding="utf-8")
            elif word in block.words and block.language == "sh":
                commands += len(block.code.strip().splitlines())
                done = subprocess.run(
                    ["sh", "-eu", "-c", block.code],
                    cwd=home / "work",
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    timeout=300,
                )
                output = done.stdout
                check(done.returncode == 0, output)
            elif word in block.words and block.language == "text":
                check(output.strip().endswith(block.code.strip()), output)
        if page == "en":
            check(0 < commands <= 3, f"{commands} commands")


def python_only(sandbox: Sandbox) -> None:
    """A machine with Python alone."""
    python = Path(os.path.realpath(sys.executable))
    local = SCRATCH / "bin"
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir(parents=True)
    (local / "python3").symlink_to(python)
    wheels = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(SCRATCH / "wheels"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    old, os.environ["PATH"] = os.environ["PATH"], os.pathsep.join([str(local), os.environ["PATH"]])
    try:
        first_page(sandbox, "python-only", ["python3"], **wheels)
    finally:
        os.environ["PATH"] = old


def node_only(sandbox: Sandbox) -> None:
    """A machine with Node.js alone."""
    registry = Registry()
    first_page(sandbox, "node-only", ["node", "npm"], npm_config_registry=registry.url)
    registry.shutdown()


RECIPES: dict[str, Callable[[Sandbox], None]] = {
    "python-only": python_only,
    "node-only": node_only,
    "approval": approval,
    "celery": celery,
    "clash": clash,
    "cron": cron,
    "deployment": deployment,
    "fastapi": fastapi,
    "fastify": fastify,
    "gevent": gevent,
    "nextjs": nextjs,
    "proxy": proxy,
    "pyinstaller": pyinstaller,
    "serverless": serverless,
}


def main() -> int:
    """Runs the recipes that the command line names, or all."""
    if sys.argv[1:2] != ["--recipes"]:
        raise SystemExit(f"unknown: {' '.join(sys.argv[1:])}")
    unknown = set(sys.argv[2:]) - {*RECIPES, "blocks"}
    if unknown:
        raise SystemExit(f"no recipe {', '.join(unknown)}: there are {', '.join(RECIPES)} and blocks")
    untested = {folder.name for folder in PROGRAMS.iterdir() if folder.is_dir()} - RECIPES.keys()
    if untested:
        raise SystemExit(f"docs/guide/recipes/{untested.pop()} has no function in recipes.py")
    names = sys.argv[2:] or [*RECIPES, "blocks"]
    began = time.monotonic()
    build()
    install()
    failed = 0
    for name in names:
        start = time.monotonic()
        try:
            if name == "blocks":
                script = str(Path(__file__).with_name("snippets.py"))
                print(run(sys.executable, script, "--third-party", "--built"), end="")
            else:
                with Sandbox() as sandbox:
                    RECIPES[name](sandbox)
        except (FailedError, OSError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"{name}: {error}")
        else:
            print(f"{name:<14}{time.monotonic() - start:6.1f} s", flush=True)
    counts = f"{len(names) - failed} passed" + (f", {failed} failed" if failed else "")
    print(f"recipes: {counts} in {time.monotonic() - began:.1f}s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
