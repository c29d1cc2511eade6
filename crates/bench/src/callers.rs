//! The clients that are measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::measure::on;

/// Paths of what [`crate::prepare`] makes.
pub(crate) struct Places {
    pub(crate) root: PathBuf,
    /// This program. It is also the server and the callers in Rust.
    pub(crate) program: PathBuf,
    /// The virtual environments and npm folders: `py-requests`, `node-undici`, …
    pub(crate) scratch: PathBuf,
    pub(crate) scripts: PathBuf,
}

impl Places {
    pub(crate) fn python(&self, package: &str) -> PathBuf {
        self.scratch.join(format!("py-{package}/bin/python"))
    }

    pub(crate) fn site_packages(&self, package: &str) -> Result<PathBuf> {
        let library = self.scratch.join(format!("py-{package}/lib"));
        let python = std::fs::read_dir(library)?.next().ok_or("no library")??;
        Ok(python.path().join("site-packages"))
    }

    pub(crate) fn node(&self, package: &str) -> PathBuf {
        self.scratch.join(format!("node-{package}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Python,
    Node,
}

/// A client that makes calls for a given time.
pub(crate) struct Caller {
    pub(crate) name: &'static str,
    pub(crate) language: Language,
    /// The environment or folder in which it is installed.
    package: &'static str,
    /// Its name in the script.
    word: &'static str,
    /// The numbers of concurrent calls with which it is measured; `many` is the bulk call.
    pub(crate) in_flight: &'static [&'static str],
}

const ALL: &[&str] = &["1", "50", "500"];
const OURS: &[&str] = &["1", "50", "500", "many"];

pub(crate) const CALLERS: &[Caller] = &[
    Caller::new("Rust: feishu-feed-card", Language::Rust, "", "core", OURS),
    Caller::new("Rust: reqwest", Language::Rust, "", "reqwest", ALL),
    Caller::new("Rust: reqwest, bare", Language::Rust, "", "bare-reqwest", ALL),
    Caller::new("Rust: hyper", Language::Rust, "", "hyper", ALL),
    Caller::new(
        "Python: Client",
        Language::Python,
        "ours",
        "feed_card",
        &["1", "8", "many"],
    ),
    Caller::new(
        "Python: http.client",
        Language::Python,
        "bare",
        "http_client",
        &["1", "8"],
    ),
    Caller::new(
        "Python: requests",
        Language::Python,
        "requests",
        "requests",
        &["1", "8"],
    ),
    Caller::new("Python: httpx", Language::Python, "httpx", "httpx", &["1"]),
    Caller::new(
        "Python: lark-oapi",
        Language::Python,
        "lark-oapi",
        "lark_oapi",
        &["1"],
    ),
    Caller::new(
        "Python: AsyncClient",
        Language::Python,
        "ours",
        "feed_card_async",
        OURS,
    ),
    Caller::new(
        "Python: aiohttp",
        Language::Python,
        "aiohttp",
        "aiohttp_async",
        ALL,
    ),
    Caller::new(
        "Python: httpx, async",
        Language::Python,
        "httpx",
        "httpx_async",
        ALL,
    ),
    // Not with 500, which would take half a minute: each call makes a client and blocks the loop.
    Caller::new(
        "Python: lark-oapi, async",
        Language::Python,
        "lark-oapi",
        "lark_oapi_async",
        &["1", "50"],
    ),
    Caller::new(
        "Node: feishu-feed-card",
        Language::Node,
        "ours",
        "feishu-feed-card",
        OURS,
    ),
    Caller::new("Node: undici", Language::Node, "undici", "undici", ALL),
    Caller::new("Node: http.request", Language::Node, "bare", "http.request", ALL),
    Caller::new("Node: fetch", Language::Node, "bare", "fetch", ALL),
    Caller::new(
        "Node: node-sdk",
        Language::Node,
        "sdk",
        "@larksuiteoapi/node-sdk",
        ALL,
    ),
];

impl Caller {
    const fn new(
        name: &'static str,
        language: Language,
        package: &'static str,
        word: &'static str,
        in_flight: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            language,
            package,
            word,
            in_flight,
        }
    }

    pub(crate) fn command(&self, places: &Places, base_url: &str, processor: Option<&str>) -> Command {
        let mut command = match self.language {
            Language::Rust => {
                let program = &places.program;
                let mut command = processor.map_or_else(|| Command::new(program), |one| on(one, program));
                command.args(["call", self.word, base_url]);
                command
            }
            Language::Python => {
                let mut command = Command::new(places.python(self.package));
                command
                    .arg(places.scripts.join("python.py"))
                    .args([self.word, base_url]);
                command
            }
            Language::Node => {
                let mut command = Command::new("node");
                command
                    .arg(places.scripts.join("node.mjs"))
                    .args([self.word, base_url]);
                command.arg(places.node(self.package));
                command
            }
        };
        alone(&mut command);
        command
    }
}

/// A script that makes one call and ends.
pub(crate) struct Starter {
    pub(crate) name: &'static str,
    pub(crate) language: Language,
    pub(crate) package: &'static str,
    /// In `scripts/cold`; `None` starts the interpreter alone.
    script: Option<&'static str>,
    /// The module to import or require, if the import is measured.
    pub(crate) import: Option<&'static str>,
    /// Whether it accepts a certificate authority.
    pub(crate) speaks_https: bool,
}

pub(crate) const STARTERS: &[Starter] = &[
    Starter::new(
        "Python: feishu_feed_card",
        Language::Python,
        "ours",
        Some("feed_card.py"),
        Some("feishu_feed_card"),
        true,
    ),
    Starter::new("Python alone", Language::Python, "bare", None, None, false),
    Starter::new(
        "Python: http.client",
        Language::Python,
        "bare",
        Some("http_client.py"),
        Some("http.client"),
        true,
    ),
    Starter::new(
        "Python: requests",
        Language::Python,
        "requests",
        Some("with_requests.py"),
        Some("requests"),
        true,
    ),
    Starter::new(
        "Python: httpx",
        Language::Python,
        "httpx",
        Some("with_httpx.py"),
        Some("httpx"),
        true,
    ),
    Starter::new(
        "Python: aiohttp",
        Language::Python,
        "aiohttp",
        Some("with_aiohttp.py"),
        Some("aiohttp"),
        true,
    ),
    Starter::new(
        "Python: lark-oapi",
        Language::Python,
        "lark-oapi",
        Some("with_lark_oapi.py"),
        Some("lark_oapi"),
        false,
    ),
    Starter::new(
        "Node: feishu-feed-card",
        Language::Node,
        "ours",
        Some("feed_card.cjs"),
        Some("feishu-feed-card"),
        true,
    ),
    Starter::new("Node alone", Language::Node, "bare", None, None, false),
    Starter::new(
        "Node: fetch",
        Language::Node,
        "bare",
        Some("with_fetch.cjs"),
        None,
        true,
    ),
    Starter::new(
        "Node: http.request",
        Language::Node,
        "bare",
        Some("with_http_request.cjs"),
        Some("node:http"),
        true,
    ),
    Starter::new(
        "Node: undici",
        Language::Node,
        "undici",
        Some("with_undici.cjs"),
        Some("undici"),
        true,
    ),
    Starter::new(
        "Node: node-sdk",
        Language::Node,
        "sdk",
        Some("with_node_sdk.cjs"),
        Some("@larksuiteoapi/node-sdk"),
        false,
    ),
];

/// Prints the time of an import, and the memory after it and after the first call.
const LOOK_PYTHON: &str = r#"
import sys, time
before = set(sys.modules)
def memory():
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmRSS"))
module, script, *arguments = sys.argv[1:]
began = time.perf_counter()
if module:
    __import__(module)
took = time.perf_counter() - began
modules = len(set(sys.modules) - before)
after_import = memory()
if script:
    sys.argv = [script, *arguments]
    exec(compile(open(script).read(), script, "exec"), {"__name__": "__main__"})
print(took * 1000, modules, after_import, memory())
"#;

const LOOK_NODE: &str = r"
const [module, script, folder, ...rest] = process.argv.slice(1)
const began = performance.now()
if (module) require(module.startsWith('node:') ? module : `${folder}/node_modules/${module}`)
const took = performance.now() - began
const afterImport = process.memoryUsage.rss() / 1024
if (script) {
  process.argv = ['node', script, folder, ...rest]
  require(script)
}
process.once('exit', () => console.log(took, 0, afterImport, process.memoryUsage.rss() / 1024))
";

impl Starter {
    const fn new(
        name: &'static str,
        language: Language,
        package: &'static str,
        script: Option<&'static str>,
        import: Option<&'static str>,
        speaks_https: bool,
    ) -> Self {
        Self {
            name,
            language,
            package,
            script,
            import,
            speaks_https,
        }
    }

    pub(crate) fn calls(&self) -> bool {
        self.script.is_some()
    }

    fn script(&self, places: &Places) -> PathBuf {
        self.script
            .map_or_else(PathBuf::new, |script| places.scripts.join("cold").join(script))
    }

    /// One call, from the start of the process to its end.
    pub(crate) fn once(&self, places: &Places, base_url: &str, chat: &str, ca: Option<&Path>) -> Command {
        let mut command = self.interpreter(places);
        match (self.language, self.script) {
            (Language::Python, None) => command.args(["-c", "pass"]),
            (_, None) => command.args(["-e", "0"]),
            _ => command.arg(self.script(places)),
        };
        if self.script.is_some() {
            if self.language == Language::Node {
                command.arg(places.node(self.package));
            }
            command.args([base_url, chat]);
            command.args(ca);
        }
        if let Some(ca) = ca.filter(|_| self.name == "Node: fetch") {
            command.env("NODE_EXTRA_CA_CERTS", ca);
        }
        alone(&mut command);
        command
    }

    /// The same call with measurements of the process. Prints four numbers.
    pub(crate) fn look(&self, places: &Places, base_url: &str, chat: &str) -> Command {
        let mut command = self.interpreter(places);
        match self.language {
            Language::Python => command.args(["-c", LOOK_PYTHON]),
            _ => command.args(["-e", LOOK_NODE, "--"]),
        };
        command
            .arg(self.import.unwrap_or_default())
            .arg(self.script(places));
        if self.language == Language::Node {
            command.arg(places.node(self.package));
        }
        command.args([base_url, chat]);
        alone(&mut command);
        command
    }

    fn interpreter(&self, places: &Places) -> Command {
        match self.language {
            Language::Python => Command::new(places.python(self.package)),
            _ => Command::new("node"),
        }
    }
}

/// Variables of the machine's proxy and Python settings, which would distort figures.
fn alone(command: &mut Command) {
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "PYTHONPATH",
    ] {
        command.env_remove(name);
    }
}
