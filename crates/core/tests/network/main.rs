//! The client on a real network: outages, connections that close or go silent, proxies, certificates, limits of the
//! system. What needs environment variables or limits runs in a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what helpers cannot do ends their test, as it should"
)]

use std::process::{Command, Output};

use feishu_feed_card::{Client, ClientBuilder, Error, Outcome};
use feishu_feed_card_sandbox::{Sandbox, World};

mod connections;
mod environment;
// Lowers limits of its process with `rustix`, which is a dependency on Linux only.
#[cfg(target_os = "linux")]
mod limits;
// Needs mount namespaces.
#[cfg(target_os = "linux")]
mod names;
// Needs network namespaces.
#[cfg(target_os = "linux")]
mod namespaces;
// Needs network namespaces.
#[cfg(target_os = "linux")]
mod outage;
mod proxies;
mod proxy_servers;
mod reasons;
mod servers;
mod trust;
mod unsent;

const CHAT: &str = World::EXAMPLE_CHAT;
const USER: &str = World::EXAMPLE_USER;

fn app() -> ClientBuilder {
    Client::builder().app(World::EXAMPLE_APP_ID, World::EXAMPLE_APP_SECRET)
}

fn client(sandbox: &Sandbox) -> Client {
    app().base_url(sandbox.base_url()).build().unwrap()
}

async fn pin(client: &Client) -> Result<Outcome, Error> {
    let result = client.set_time_sensitive(CHAT, [USER], true).await;
    if let Err(error) = &result {
        with_sources(error);
    }
    result?.into_result()
}

/// The error with its sources, as `{:#}` of `anyhow` prints it. Fails if a text is repeated.
fn with_sources(error: &Error) -> String {
    let mut texts = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    for (index, text) in texts.iter().enumerate() {
        let others = texts.iter().enumerate().filter(|(other, _)| *other != index);
        for (_, other) in others {
            assert!(!other.contains(text), "{text:?} is there twice: {texts:?}");
        }
    }
    texts.join(": ")
}

/// A file that is removed on drop.
struct TempFile(std::path::PathBuf);

impl TempFile {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("feishu-feed-card-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Variables of the developer's environment that would change a test.
const PROXY_VARIABLES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "REQUEST_METHOD",
    "SSL_CERT_FILE",
];

/// Runs an ignored test in a new process with these variables. Returns its output.
fn in_process(test: &str, variables: &[(&str, String)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for variable in PROXY_VARIABLES {
        command.env_remove(variable);
    }
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(variables.iter().map(|(name, value)| (name, value)));
    passed(&command.output().unwrap())
}

/// Checks that a process ran one test and that the test passed. Returns what it printed.
fn passed(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
    printed.into_owned()
}

fn test_base_url() -> String {
    std::env::var("TEST_BASE_URL").unwrap()
}
