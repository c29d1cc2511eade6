//! The sandbox in a separate process. It is controlled through pipes, which work also without the network and the
//! sandbox's listener.

use std::io::{BufRead, Write, stdin, stdout};

use feishu_feed_card_sandbox::{Sandbox as Platform, World};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::Result;
use crate::process::Process;

/// `sandbox ADDRESS`: the first line of input is the world, each further line a control with one line of output. The
/// first line of output is the base URL.
pub(crate) fn serve(address: &str) -> Result<()> {
    let mut lines = stdin().lock().lines();
    let world: World = serde_json::from_str(&lines.next().ok_or("no world")??)?;
    let platform = Platform::builder().world(world).bind(address.parse()?).start()?;
    let mut answer = platform.base_url();
    loop {
        let mut out = stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
        let Some(control) = lines.next() else {
            return Ok(());
        };
        let control = control?;
        answer = platform
            .control_json(&control)
            .map_err(|error| format!("{control}: {error}"))?;
    }
}

pub(crate) struct Sandbox {
    pub(crate) base_url: String,
    process: Mutex<Process>,
}

impl Sandbox {
    /// Starts it with a command that runs [`serve`].
    pub(crate) async fn start(command: Command, world: &World) -> Result<Self> {
        let mut process = Process::start(command)?;
        process.tell(&serde_json::to_string(world)?).await?;
        let base_url = process.line().await?.trim().to_owned();
        Ok(Self {
            base_url,
            process: Mutex::new(process),
        })
    }

    pub(crate) async fn control(&self, control: &Value) -> Result<Value> {
        let mut process = self.process.lock().await;
        process.tell(&control.to_string()).await?;
        let answer = process.line().await;
        Ok(serde_json::from_str(
            &answer.map_err(|error| format!("the sandbox {error}"))?,
        )?)
    }

    pub(crate) async fn state(&self) -> Result<Value> {
        self.control(&json!({"do": "state"})).await
    }
}
