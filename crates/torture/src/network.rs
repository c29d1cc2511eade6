//! A network that can fail: three network namespaces of Linux, in which the router between clients and platform can
//! stop forwarding. Packets are then dropped silently, as on a network that goes down, and the kernels on both
//! sides keep retransmitting. Needs root, `ip`, `nsenter` and `unshare`.

use std::ffi::OsStr;
use std::fmt::Write;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::Result;
use crate::process::Process;

const ROUTER_TO_CLIENTS: &str = "10.9.1.1";
const CLIENTS: &str = "10.9.1.2";
const ROUTER_TO_PLATFORM: &str = "10.9.2.1";
const PLATFORM: &str = "10.9.2.2";

/// After an outage of 20 s, Linux retransmits within another 20 s: it doubles the interval each time.
const LONGEST_RETRANSMISSION: Duration = Duration::from_secs(60);

/// Processes that keep the namespaces alive: a namespace exists as long as a process in it.
pub(crate) struct Network {
    clients: Process,
    router: Process,
    platform: Process,
}

impl Network {
    pub(crate) async fn start() -> Result<Self> {
        let user = Command::new("id").arg("-u").output().await?;
        if user.stdout.trim_ascii() != b"0" {
            return Err("not root".into());
        }
        let network = Self {
            clients: namespace().await?,
            router: namespace().await?,
            platform: namespace().await?,
        };
        let mut router = String::new();
        for (name, end, ours) in [
            ("clients", &network.clients, ROUTER_TO_CLIENTS),
            ("platform", &network.platform, ROUTER_TO_PLATFORM),
        ] {
            writeln!(
                router,
                "ip link add {name} type veth peer name router netns {end}\n\
                 ip addr add {ours}/24 dev {name}\n\
                 ip link set {name} up",
                end = id(end)?,
            )?;
        }
        run(&network.router, &router).await?;
        for (end, ours, router) in [
            (&network.clients, CLIENTS, ROUTER_TO_CLIENTS),
            (&network.platform, PLATFORM, ROUTER_TO_PLATFORM),
        ] {
            let script = format!(
                "ip addr add {ours}/24 dev router\n\
                 ip link set router up\n\
                 ip route add default via {router}"
            );
            run(end, &script).await?;
        }
        network.forward(true).await?;
        Ok(network)
    }

    /// Lets the router forward packets, or drop them.
    pub(crate) async fn forward(&self, forwards: bool) -> Result<()> {
        let value = u8::from(forwards);
        run(
            &self.router,
            &format!("echo {value} >/proc/sys/net/ipv4/ip_forward"),
        )
        .await
    }

    /// Waits until the clients' kernel has nothing to retransmit any more, not even for connections that a client has
    /// closed: nothing can arrive late from then on.
    pub(crate) async fn settle(&self) -> Result<()> {
        let began = Instant::now();
        let sockets = format!("/proc/{}/net/tcp", id(&self.clients)?);
        loop {
            let waiting = unacknowledged(&std::fs::read_to_string(&sockets)?);
            if waiting == 0 {
                return Ok(());
            }
            if began.elapsed() > LONGEST_RETRANSMISSION {
                return Err(format!("{waiting} connections of the clients still retransmit").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The address at which the platform listens: on this network, or else on loopback.
pub(crate) fn platform_address(network: Option<&Network>) -> &'static str {
    network.map_or("127.0.0.1", |_| PLATFORM)
}

/// A program that runs where the clients are.
pub(crate) fn client(network: Option<&Network>, program: impl AsRef<OsStr>) -> Result<Command> {
    program_in(network.map(|network| &network.clients), program)
}

/// A program that runs where the platform is.
pub(crate) fn platform(network: Option<&Network>, program: impl AsRef<OsStr>) -> Result<Command> {
    program_in(network.map(|network| &network.platform), program)
}

fn program_in(namespace: Option<&Process>, program: impl AsRef<OsStr>) -> Result<Command> {
    let Some(namespace) = namespace else {
        return Ok(Command::new(program));
    };
    // `exec`, so that there is only one process to kill.
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", id(namespace)?))
        .args(["--net", "--"])
        .arg(program);
    Ok(command)
}

async fn namespace() -> Result<Process> {
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "cat"]);
    let mut process = Process::start(command)?;
    // Once `cat` answers, `unshare` has made the namespace and become `cat`.
    process.tell("").await?;
    process.line().await.map_err(|error| format!("unshare {error}"))?;
    Ok(process)
}

fn id(namespace: &Process) -> Result<u32> {
    namespace
        .id()
        .ok_or_else(|| "a network namespace has ended".into())
}

async fn run(namespace: &Process, script: &str) -> Result<()> {
    let mut command = program_in(Some(namespace), "sh")?;
    command.args(["-ec", script]).kill_on_drop(true);
    let output = command.output().await?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{script}: {}: {}", output.status, errors.trim()).into())
}

/// Counts the sockets with unacknowledged data in a table of the kernel. Its fifth column has the sizes of the queues,
/// `sending:receiving`.
fn unacknowledged(table: &str) -> usize {
    table
        .lines()
        .skip(1)
        .filter_map(|socket| socket.split_whitespace().nth(4)?.split_once(':'))
        .filter(|(sending, _)| sending.bytes().any(|digit| digit != b'0'))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_retransmit_are_counted() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
            0: 0201090A:C350 0202090A:1F90 01 00000000:00000010 00:00000000 00000000     0\n\
            1: 0201090A:C351 0202090A:1F90 04 000001A3:00000000 01:00000015 00000004     0\n\
            2: 0201090A:C352 0202090A:1F90 06 00000000:00000000 03:00001763 00000000     0\n";
        assert_eq!(unacknowledged(table), 1);
        assert_eq!(unacknowledged(""), 0);
    }

    #[tokio::test]
    async fn nothing_passes_during_an_outage() {
        let network = match Network::start().await {
            Ok(network) => network,
            Err(reason) => return eprintln!("not tested: {reason}"),
        };
        // Nothing listens there: if packets pass in both directions, the connection is refused at once.
        let passes = async || {
            let mut connect = client(Some(&network), "timeout").unwrap();
            connect.args(["1", "bash", "-c", &format!("true <>/dev/tcp/{PLATFORM}/8080")]);
            match connect.output().await.unwrap().status.code() {
                Some(1) => true,
                Some(124) => false,
                other => panic!("{other:?}"),
            }
        };
        assert!(passes().await);
        network.forward(false).await.unwrap();
        assert!(!passes().await);
        network.forward(true).await.unwrap();
        assert!(passes().await);
        network.settle().await.unwrap();

        let ids = [&network.clients, &network.router, &network.platform].map(|end| id(end).unwrap());
        drop(network);
        while ids
            .iter()
            .any(|id| std::fs::exists(format!("/proc/{id}")).unwrap())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
