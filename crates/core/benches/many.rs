//! Measures `set_time_sensitive_many` with a thousand and with a million requests: peak memory, and CPU time for each
//! result. Each number of requests runs in its own process, against a sandbox in another process. Linux only.
//!
//! ```text
//! cargo bench -p feishu-feed-card --bench many
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, stdin};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use feishu_feed_card::{Client, Request};
use feishu_feed_card_sandbox::{Sandbox, Switches, World};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(),
        ["call", requests, base_url] => call(requests.parse()?, base_url),
        // `cargo test --all-targets` also runs this program, without `--bench`.
        [.., "--bench"] => compare(),
        _ => Ok(()),
    }
}

fn compare() -> Result<()> {
    let (mut server, base_url) = start_server()?;
    let measured = [1000, 1_000_000].map(|requests| measure(requests, &base_url));
    drop(server.stdin.take());
    server.wait()?;
    let [few, many] = measured;
    let (few, many) = (few?, many?);
    println!("the peak grew by {:.1} MiB", (many - few) / 1024.0);
    Ok(())
}

fn this_program(arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    Ok(command.spawn()?)
}

fn start_server() -> Result<(Child, String)> {
    let mut server = this_program(&["serve"])?;
    let mut base_url = String::new();
    let stdout = server.stdout.take().ok_or("no output")?;
    BufReader::new(stdout).read_line(&mut base_url)?;
    Ok((server, base_url.trim().to_owned()))
}

/// Serves requests until standard input is closed.
fn serve() -> Result<()> {
    let switches = Switches {
        keep_requests: 0,
        keep_arrivals: 0,
        ..Switches::unlimited()
    };
    let sandbox = Sandbox::builder().switches(switches).start()?;
    println!("{}", sandbox.base_url());
    stdin().lines().for_each(drop);
    Ok(())
}

/// Returns the peak of the resident memory, in KiB, and prints the CPU time.
fn measure(requests: u32, base_url: &str) -> Result<f64> {
    let output = this_program(&["call", &requests.to_string(), base_url])?.wait_with_output()?;
    let printed = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = printed
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let [peak, cpu, wall] = numbers[..] else {
        return Err(format!("{requests} requests ended with {}", output.status).into());
    };
    let each = 1e6 / f64::from(requests);
    println!(
        "{requests} requests: peak {:.1} MiB, {:.1} µs of CPU and {:.1} µs each",
        peak / 1024.0,
        cpu * each,
        wall * each
    );
    Ok(peak)
}

#[tokio::main(flavor = "current_thread")]
async fn call(requests: u32, base_url: &str) -> Result<()> {
    let client = Client::builder()
        .app(World::EXAMPLE_APP_ID, World::EXAMPLE_APP_SECRET)
        .base_url(base_url)
        .rate_limit(None)
        .build()?;
    let began = Instant::now();
    let requests = (0..requests).map(|_| Request::new(World::EXAMPLE_CHAT, [World::EXAMPLE_USER], true));
    let mut many = client.set_time_sensitive_many(requests);
    while let Some(item) = many.next().await.transpose()? {
        if !item.result?.ok() {
            return Err(format!("{} was not reached", item.index).into());
        }
    }
    println!("{} {} {}", peak()?, cpu()?, began.elapsed().as_secs_f64());
    Ok(())
}

fn peak() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Returns the seconds in user and system mode. The kernel counts hundredths.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<std::result::Result<f64, _>>()? / 100.0)
}
