//! The sandbox in a process of its own, and one connection to its controls that outlives everything it does
//! to the others.

use std::path::Path;
use std::process::Stdio;

use feishu_feed_card_sandbox::World;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::Result;

pub(crate) struct Sandbox {
    pub(crate) base_url: String,
    /// Ended with this.
    _process: Child,
    controls: Mutex<BufReader<TcpStream>>,
}

impl Sandbox {
    pub(crate) async fn start(program: &Path, world: &World, folder: &Path) -> Result<Self> {
        let file = folder.join("world.json");
        std::fs::write(&file, serde_json::to_string(world)?)?;
        let mut process = Command::new(program)
            .args(["--port", "0", "--quiet", "--world"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut base_url = String::new();
        let stdout = process.stdout.take().ok_or("the sandbox has no output")?;
        BufReader::new(stdout).read_line(&mut base_url).await?;
        let base_url = base_url.trim().to_owned();
        let address = base_url
            .strip_prefix("http://")
            .ok_or("the sandbox did not start")?;
        let controls = TcpStream::connect(address).await?;
        controls.set_nodelay(true)?;
        Ok(Self {
            base_url,
            _process: process,
            controls: Mutex::new(BufReader::new(controls)),
        })
    }

    /// Over plain HTTP, by hand: an HTTP client would be free to open another connection, which finds the
    /// door shut.
    pub(crate) async fn control(&self, control: &Value) -> Result<Value> {
        let body = control.to_string();
        let request = format!(
            "POST /_sandbox/control HTTP/1.1\r\nHost: sandbox\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut controls = self.controls.lock().await;
        controls.write_all(request.as_bytes()).await?;
        let mut length = 0;
        let mut status = String::new();
        controls.read_line(&mut status).await?;
        loop {
            let mut line = String::new();
            if controls.read_line(&mut line).await? == 0 {
                return Err("the sandbox has ended".into());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        controls.read_exact(&mut body).await?;
        if !status.contains(" 200 ") {
            return Err(format!("{control}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    pub(crate) async fn state(&self) -> Result<Value> {
        self.control(&json!({"do": "state"})).await
    }
}
