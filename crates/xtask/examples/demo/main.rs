//! The demo: pins the example group of the platform's page from Rust, Python and Node.js, and shows after each call for
//! whom it is pinned. `cargo xtask demo` builds what the demo needs, and runs it.

use std::error::Error;
use std::fmt::Display;
use std::path::Path;
use std::process::Command;

use feishu_feed_card::Client;
use feishu_feed_card_sandbox::{Sandbox, World};

const CHAT: &str = World::EXAMPLE_CHAT;
const MEMBER: &str = World::EXAMPLE_USER;
const OUTSIDER: &str = World::EXAMPLE_OUTSIDER;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let python = std::env::var_os("DEMO_PYTHON").ok_or("start it with `cargo xtask demo`")?;
    let sandbox = Sandbox::builder().world(World::example()).start()?;
    println!("\nThe stand-in platform, {}", sandbox.base_url());
    row("group", CHAT);
    row("member", MEMBER);
    row("not in it", OUTSIDER);

    rust(&sandbox).await?;

    // `cargo xtask demo` starts this in the project's folder.
    let script = |name: &str| Path::new("crates/xtask/examples/demo").join(name);
    for (language, program, script, mode) in [
        ("Python", &*python, script("pin.py"), Some("sync")),
        ("Python, asyncio", &*python, script("pin.py"), Some("async")),
        ("Node", "node".as_ref(), script("pin.mjs"), None),
    ] {
        heading(language);
        for state in ["on", "off"] {
            let mut command = Command::new(program);
            command.arg(&script).args(mode).arg(state);
            run(command, &sandbox)?;
            show_pinned(&sandbox);
        }
    }
    Ok(())
}

async fn rust(sandbox: &Sandbox) -> Result<(), Box<dyn Error>> {
    heading("Rust");
    let client = Client::builder()
        .app(World::EXAMPLE_APP_ID, World::EXAMPLE_APP_SECRET)
        .base_url(sandbox.base_url())
        .build()?;
    for state in [true, false] {
        println!("client.set_time_sensitive(group, [member, outsider], {state}).await");
        let outcome = client.set_time_sensitive(CHAT, [MEMBER, OUTSIDER], state).await?;
        row("ok()", outcome.ok());
        for reason in &outcome.failed_user_reasons {
            let who = reason.user_id.as_deref().unwrap_or("someone");
            row(
                "failed_user_reasons",
                format_args!("{who}: {}", reason.error_message),
            );
        }
        row("log_id()", outcome.log_id().unwrap_or("none"));
        show_pinned(sandbox);
    }
    Ok(())
}

/// Runs a script as the app, against the sandbox.
fn run(mut command: Command, sandbox: &Sandbox) -> Result<(), Box<dyn Error>> {
    let status = command
        .env("FEISHU_APP_ID", World::EXAMPLE_APP_ID)
        .env("FEISHU_APP_SECRET", World::EXAMPLE_APP_SECRET)
        .env("FEISHU_BASE_URL", sandbox.base_url())
        .status()?;
    if status.success() {
        return Ok(());
    }
    let program = Path::new(command.get_program()).display();
    Err(format!("{program}: {status}").into())
}

fn heading(language: &str) {
    println!("\n── {language}");
}

fn row(name: &str, value: impl Display) {
    println!("  {name:<20} {value}");
}

fn show_pinned(sandbox: &Sandbox) {
    let users = sandbox.pinned_users(CHAT);
    let users = if users.is_empty() {
        "nobody".to_owned()
    } else {
        users.join(", ")
    };
    println!("  → pinned now for     {users}");
}
