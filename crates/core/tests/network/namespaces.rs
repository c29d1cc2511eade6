//! Network namespaces: a client, a router and the platform on networks of their own. Linux, as root.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the platform listens.
pub(crate) const PLATFORM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 2, 2));

/// A network namespace, which ends with the process that holds it.
pub(crate) struct Namespace(Child);

impl Namespace {
    fn new() -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sleep", "120"])
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare cannot be run: {error}"))?;
        let ours = fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        let path = format!("/proc/{}/ns/net", holder.id());
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if fs::read_link(&path).is_ok_and(|theirs| theirs != ours) {
                return Ok(Self(holder));
            }
            if holder.try_wait().is_ok_and(|status| status.is_some()) {
                return Err("unshare may not make network namespaces (it needs root)".to_owned());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let namespace = Self(holder);
        drop(namespace);
        Err("unshare made no network namespace within 5 s".to_owned())
    }

    /// Runs `work` on a thread inside this namespace. Threads and processes that it starts are inside as well.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.0.id());
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let namespace = File::open(path).unwrap();
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn ip(&self, arguments: &str) -> Result<(), String> {
        let output = self
            .run(|| Command::new("ip").args(arguments.split(' ')).output())
            .map_err(|error| format!("ip cannot be run: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    fn set(&self, setting: &str, value: &str) -> io::Result<()> {
        self.run(|| fs::write(format!("/proc/sys/net/ipv4/{setting}"), value))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Network {
    pub(crate) client: Namespace,
    pub(crate) router: Namespace,
    pub(crate) platform: Namespace,
}

impl Network {
    /// The networks, or `None` and a printed reason where they cannot be made.
    pub(crate) fn new() -> Option<Self> {
        Self::build()
            .map_err(|why| println!("skipped: no network namespaces here: {why}"))
            .ok()
    }

    fn build() -> Result<Self, String> {
        let network = Self {
            client: Namespace::new()?,
            router: Namespace::new()?,
            platform: Namespace::new()?,
        };
        for (end, name, number) in [(&network.client, "client", 1), (&network.platform, "platform", 2)] {
            let router = &network.router;
            router.ip(&format!(
                "link add {name} type veth peer name router netns {}",
                end.0.id()
            ))?;
            router.ip(&format!("address add 10.9.{number}.1/24 dev {name}"))?;
            router.ip(&format!("link set {name} up"))?;
            end.ip(&format!("address add 10.9.{number}.2/24 dev router"))?;
            end.ip("link set router up")?;
            end.ip("link set lo up")?;
            end.ip(&format!("route add default via 10.9.{number}.1"))?;
        }
        network.client.ip("address add 10.9.1.3/24 dev router")?;
        network.forward(true);
        Ok(network)
    }

    /// Whether the router passes packets on. Without that it drops them and tells nobody.
    pub(crate) fn forward(&self, does: bool) {
        self.router
            .set("ip_forward", if does { "1" } else { "0" })
            .unwrap();
    }

    /// Drops every packet of the connections that exist, in both directions, and tells nobody. New connections work:
    /// they have another source address.
    pub(crate) fn silence_connections(&self) {
        // Packets from an address without a route back are dropped as well.
        self.router.set("conf/client/rp_filter", "1").unwrap();
        self.router.ip("route add blackhole 10.9.1.2/32").unwrap();
        self.client
            .ip("route replace default via 10.9.1.1 src 10.9.1.3")
            .unwrap();
    }
}
