//! A driver: a process that makes the calls it is told, in one language, and says what they came back with.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Result;
use crate::plan::Script;
use crate::verdict::{Answers, Sample};

/// A round takes seconds; with every call at its deadline it would take two minutes, with many calls four.
const LONGEST_ROUND: Duration = Duration::from_secs(300);

pub(crate) struct Driver {
    /// Ended with this.
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Driver {
    pub(crate) async fn start(mut command: Command, options: &Value) -> Result<Self> {
        // Ctrl-C is for the one who started them all, and who ends them.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let to = process.stdin.take().ok_or("no input")?;
        let from = process.stdout.take().ok_or("no output")?;
        let mut driver = Self {
            process,
            to,
            from: BufReader::new(from),
        };
        driver.tell(&options.to_string()).await?;
        Ok(driver)
    }

    async fn tell(&mut self, line: &str) -> Result<()> {
        self.to.write_all(line.as_bytes()).await?;
        self.to.write_all(b"\n").await?;
        self.to.flush().await?;
        Ok(())
    }

    /// One round: the calls out, the answers in.
    pub(crate) async fn play(&mut self, script: &Script) -> Result<Answers> {
        self.tell(&serde_json::to_string(script)?).await?;
        let mut line = String::new();
        let read = timeout(LONGEST_ROUND, self.from.read_line(&mut line))
            .await
            .map_err(|_| format!("hangs: no answers after {} s", LONGEST_ROUND.as_secs()))?;
        if read? == 0 {
            return Err(format!("has ended: {:?}", self.process.wait().await?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Its memory and descriptors now; nothing where the system does not tell.
    pub(crate) fn sample(&self, calls: u64) -> Option<Sample> {
        let folder = format!("/proc/{}", self.process.id()?);
        let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let descriptors = std::fs::read_dir(format!("{folder}/fd")).ok()?.count();
        Some(Sample {
            calls,
            memory_kib: memory.trim().trim_end_matches("kB").trim().parse().ok()?,
            descriptors: u32::try_from(descriptors).ok()?.into(),
        })
    }

    /// Lets it end by itself: its input ends.
    pub(crate) async fn end(self) -> Result<()> {
        let Self {
            mut process,
            to,
            from,
        } = self;
        drop((to, from));
        let status = timeout(Duration::from_secs(30), process.wait())
            .await
            .map_err(|_| "does not end when its input ends")??;
        if status.success() {
            Ok(())
        } else {
            Err(format!("ended with {status}").into())
        }
    }
}
