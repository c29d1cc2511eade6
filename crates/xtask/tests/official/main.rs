//! Calls the sandbox with the platform's own clients, unchanged. `cargo xtask test` installs them, and passes their
//! location in environment variables.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any test function"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use feishu_feed_card_sandbox::{Chat, Sandbox, World};
use serde_json::{Value, json};

const CHAT: &str = World::EXAMPLE_CHAT;
const MEMBER: &str = World::EXAMPLE_USER;
const OUTSIDER: &str = World::EXAMPLE_OUTSIDER;

#[test]
#[ignore = "needs lark-oapi installed: `cargo xtask test` does that"]
fn lark_oapi_works_unchanged() {
    let python = given("OFFICIAL_PYTHON");
    for mode in ["sync", "async"] {
        check(|base_url, state| {
            let mut command = Command::new(&python);
            command.arg(script("pin.py")).args([base_url, state, mode]);
            command
        });
    }
}

#[test]
#[ignore = "needs @larksuiteoapi/node-sdk installed: `cargo xtask test` does that"]
fn node_sdk_works_unchanged() {
    let folder = given("OFFICIAL_NODE_FOLDER");
    check(|base_url, state| {
        let mut command = Command::new("node");
        command
            .arg(script("pin.mjs"))
            .args([base_url, state])
            .arg(&folder);
        command
    });
}

fn given(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run `cargo xtask test`"))
}

fn script(name: &str) -> PathBuf {
    // cargo runs tests in their package's folder.
    Path::new("tests/official").join(name)
}

/// Pins and unpins with a client, and checks its output and the state of the sandbox.
fn check(client: impl Fn(&str, &str) -> Command) {
    let without_bot = Chat {
        bot_in_chat: false,
        ..Chat::new("oc_without_bot", [MEMBER])
    };
    let sandbox = Sandbox::builder().chat(without_bot).start().unwrap();
    for (state, pinned, bot_pinned) in [("true", vec![CHAT], vec![MEMBER]), ("false", vec![], vec![])] {
        let said = run(client(&sandbox.base_url(), state));
        assert_eq!(
            said,
            json!({
                "partial_failure": {
                    "code": 0,
                    "msg": "success",
                    "failed": [[0, "The user is not in the chat", OUTSIDER]],
                    "has_log_id": true,
                },
                "bot": {"code": 0, "msg": "success", "failed": [], "has_log_id": true},
                "bot_not_in_chat": {
                    "code": 230_027,
                    "msg": "no permission, bot not in the chat",
                    "failed": [],
                    "has_log_id": true,
                },
            })
        );
        assert_eq!(sandbox.pinned(MEMBER), pinned);
        assert_eq!(sandbox.pinned(OUTSIDER), [""; 0]);
        assert_eq!(sandbox.bot_pinned_users(World::EXAMPLE_APP_ID), bot_pinned);
    }
    let calls = sandbox
        .requests()
        .into_iter()
        .filter(|request| request.method == "PATCH");
    assert_eq!(calls.count(), 6);
}

fn run(mut command: Command) -> Value {
    let output = command.env("NO_PROXY", "127.0.0.1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{}: {error}\n{text}\n{errors}", output.status)
    })
}
