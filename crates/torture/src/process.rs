//! Processes that read lines and print lines: the drivers, the sandbox, and those that keep network namespaces alive.
//! Their input ends when this process ends for any reason, and then they end.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Result;
use crate::plan::Script;
use crate::verdict::{Answers, Sample};

/// Limit of a round. A round takes seconds; it would take two minutes if all calls reached their deadline, and four with
/// many calls.
const LONGEST_ROUND: Duration = Duration::from_secs(300);

/// Killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        // Ctrl-C reaches only this process, which ends the others.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let to = child.stdin.take().ok_or("no input")?;
        let from = child.stdout.take().ok_or("no output")?;
        Ok(Self {
            child,
            to,
            from: BufReader::new(from),
        })
    }

    /// `None` once it has ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) async fn tell(&mut self, line: &str) -> Result<()> {
        self.to.write_all(line.as_bytes()).await?;
        self.to.write_all(b"\n").await?;
        Ok(self.to.flush().await?)
    }

    pub(crate) async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line).await? == 0 {
            return Err(format!("has ended: {}", self.child.wait().await?).into());
        }
        Ok(line)
    }

    /// One round of a driver: sends the calls, returns the answers.
    pub(crate) async fn play(&mut self, script: &Script) -> Result<Answers> {
        self.tell(&serde_json::to_string(script)?).await?;
        let line = timeout(LONGEST_ROUND, self.line())
            .await
            .map_err(|_| format!("hangs: no answers after {} s", LONGEST_ROUND.as_secs()))?;
        Ok(serde_json::from_str(&line?)?)
    }

    /// Memory and descriptors of the process. `None` if the system does not show them.
    pub(crate) fn sample(&self, calls: u64) -> Option<Sample> {
        let folder = format!("/proc/{}", self.id()?);
        let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let descriptors = std::fs::read_dir(format!("{folder}/fd")).ok()?.count();
        Some(Sample {
            calls,
            memory_kib: memory.trim().trim_end_matches("kB").trim().parse().ok()?,
            descriptors: u32::try_from(descriptors).ok()?.into(),
        })
    }

    /// Closes its input and waits for its end.
    pub(crate) async fn end(self) -> Result<()> {
        let Self { mut child, to, from } = self;
        drop((to, from));
        let status = timeout(Duration::from_secs(30), child.wait())
            .await
            .map_err(|_| "does not end when its input ends")??;
        if status.success() {
            Ok(())
        } else {
            Err(format!("ended with {status}").into())
        }
    }
}
