//! Measures processes from outside: their time, and their use of CPU and memory according to the kernel.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::callers::Places;

/// A process, killed on drop.
pub(crate) struct Process {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let (to, from) = (child.stdin.take(), child.stdout.take().ok_or("no output")?);
        Ok(Self {
            child,
            to,
            from: BufReader::new(from),
        })
    }

    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.from.read_line(&mut line)? {
            0 => Err(format!("ended: {}", self.child.wait()?).into()),
            _ => Ok(line.trim().to_owned()),
        }
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let to = self.to.as_mut().ok_or("no input")?;
        writeln!(to, "{line}")?;
        Ok(to.flush()?)
    }

    /// CPU time in seconds, with the kernel's resolution of 10 ms.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        ticks(&stat)
            .map(|ticks| ticks / 100.0)
            .ok_or_else(|| "no ticks".into())
    }
}

/// User and system time of a process, from the kernel's `stat` file.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server, which counts calls.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) base_url: String,
}

impl Server {
    pub(crate) fn start(places: &Places) -> Result<Self> {
        Self::of(Command::new(&places.program))
    }

    pub(crate) fn start_on(processor: &str, places: &Places) -> Result<Self> {
        Self::of(on(processor, &places.program))
    }

    fn of(mut command: Command) -> Result<Self> {
        command.arg("serve");
        let mut process = Process::start(command)?;
        let base_url = process.line()?;
        Ok(Self { process, base_url })
    }

    /// The number of calls since the last use of this method, and of their chats.
    pub(crate) fn counts(&self) -> Result<(u64, u64)> {
        let address = self.base_url.strip_prefix("http://").ok_or("no address")?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /counts HTTP/1.1\r\n\r\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no counts")?;
        let (calls, chats) = body.split_once(' ').ok_or("no counts")?;
        Ok((calls.parse()?, chats.parse()?))
    }
}

/// A command that runs a program on one processor.
pub(crate) fn on(processor: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", processor]).arg(program);
    command
}

/// The processors that this process may use.
pub(crate) fn first_and_last_processor() -> Result<(String, String)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let processors = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .ok_or("no list of processors")?
        .trim();
    let is_between = |letter: char| !letter.is_ascii_digit();
    let first = processors.split(is_between).next().unwrap_or(processors);
    let last = processors.rsplit(is_between).next().unwrap_or(processors);
    Ok((first.to_owned(), last.to_owned()))
}

/// The share of all processors used during two seconds.
pub(crate) fn busy() -> Result<f64> {
    let look = || -> Result<(f64, f64)> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        spent(&stat).ok_or_else(|| "no account of the processors".into())
    };
    let before = look()?;
    std::thread::sleep(Duration::from_secs(2));
    let after = look()?;
    let (idle, all) = (after.0 - before.0, after.1 - before.1);
    Ok(1.0 - idle / all)
}

/// Idle time and total time, summed over all processors.
fn spent(stat: &str) -> Option<(f64, f64)> {
    let times: Vec<f64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .map_while(|time| time.parse().ok())
        .collect();
    Some((times.get(3)? + times.get(4)?, times.iter().sum()))
}

/// Runs a program to its end. Returns its time and output.
pub(crate) fn timed(mut command: Command) -> Result<(Duration, String)> {
    let began = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let took = began.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {said}", output.status).into());
    }
    Ok((took, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The size of all files below a folder, without links.
pub(crate) fn size(path: &Path, leaves_out: &dyn Fn(&str) -> bool) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if leaves_out(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if kind.is_dir() {
            bytes += size(&entry.path(), leaves_out)?;
        } else if kind.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{spent, ticks};

    #[test]
    fn a_processs_account_is_read() {
        let stat = "7 (a name) with (brackets)) S 1 7 7 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(42.0));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn the_processors_account_is_read() {
        let stat = "cpu  10 1 5 80 3 0 1 0 0 0\ncpu0 10 1 5 80 3 0 1 0 0 0\n";
        assert_eq!(spent(stat), Some((83.0, 100.0)));
        assert_eq!(spent(""), None);
    }
}
