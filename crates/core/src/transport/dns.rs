//! Name lookups. Each runs on its own thread, because tokio's blocking pool panics if the system refuses a thread.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::Shared;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::data::text::{Text, text};

/// For how long after its start other connections join a lookup. A longer lookup may hang on an unreachable DNS server
/// (the system gives up after 10 s or more), so the next connection starts another one.
const JOINABLE_FOR: Duration = Duration::from_secs(1);

/// The most unfinished lookups of one host. Each occupies a thread, possibly for minutes.
const MAX_PER_HOST: usize = 4;

type Lookup = Shared<Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>>>;

/// Rules for the addresses of a name.
#[derive(Clone, Copy, Default)]
pub(super) struct Rules {
    /// Accept loopback addresses only. Applies to http without `allow_http`, which is permitted to this machine only.
    pub(super) loopback_only: bool,
    /// Put IPv4 addresses first. Applies to `socks5` and `socks4` proxies, which get the first address only: a SOCKS5
    /// proxy may not support IPv6, and SOCKS4 never does.
    pub(super) ipv4_first: bool,
}

/// Resolves names with the system's resolver.
pub(super) struct SystemResolver {
    rules: Rules,
    /// How long a connection waits for a lookup.
    timeout: Duration,
    /// Unfinished lookups by host, oldest first.
    running: Mutex<HashMap<String, Vec<(Instant, Lookup)>>>,
}

impl SystemResolver {
    /// Lookups time out after 90 % of the `connect_timeout`, so that the error can name DNS. After 100 %, the timeout of
    /// the whole connection would come first and hide the cause.
    pub(super) fn new(rules: Rules, connect_timeout: Duration) -> Self {
        Self {
            rules,
            timeout: connect_timeout.mul_f64(0.9),
            running: Mutex::default(),
        }
    }

    fn join_or_start(&self, host: &str) -> Lookup {
        let running = &mut *self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, lookups| {
            lookups.retain(|(_, lookup)| lookup.peek().is_none());
            !lookups.is_empty()
        });
        let lookups = running.entry(host.to_owned()).or_default();
        if let Some((started, newest)) = lookups.last()
            && (started.elapsed() < JOINABLE_FOR || lookups.len() >= MAX_PER_HOST)
        {
            return newest.clone();
        }
        let lookup = look_up(host.to_owned(), self.rules);
        lookups.push((Instant::now(), lookup.clone()));
        lookup
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = timeout(self.timeout, self.join_or_start(name.as_str()));
        Box::pin(async move {
            let timed_out = || Err(LookupError::new(name.as_str().to_owned(), Cause::TimedOut));
            let addresses = lookup.await.unwrap_or_else(|_| timed_out())?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn look_up(host: String, rules: Rules) -> Lookup {
    let (sender, receiver) = oneshot::channel();
    let name = host.clone();
    let spawned = thread::Builder::new()
        .name("feishu-feed-card-dns".to_owned())
        .spawn(move || {
            let resolved = resolve(name, rules);
            drop(sender.send(resolved));
        });
    let lookup = async move {
        if let Err(error) = spawned {
            return Err(LookupError::new(host, Cause::NoThread(error)));
        }
        receiver
            .await
            .unwrap_or_else(|_| Err(LookupError::new(host, Cause::Panicked)))
    };
    lookup.boxed().shared()
}

fn resolve(host: String, rules: Rules) -> Result<Vec<SocketAddr>, LookupError> {
    let mut addresses: Vec<SocketAddr> = match (host.as_str(), 0).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(LookupError::new(host, lookup_cause(error))),
    };
    if addresses.is_empty() {
        return Err(LookupError::new(host, Cause::NoAddress));
    }
    if rules.loopback_only {
        addresses.retain(|address| address.ip().is_loopback());
        if addresses.is_empty() {
            return Err(LookupError::new(host, Cause::NotThisMachine));
        }
    }
    if rules.ipv4_first {
        addresses.sort_by_key(SocketAddr::is_ipv6);
    }
    Ok(addresses)
}

/// The cause of a failed lookup. Without a free file descriptor, glibc can neither read files nor ask a server, and
/// reports that the name does not exist. So test whether a descriptor can be opened.
fn lookup_cause(error: io::Error) -> Cause {
    // ENFILE and EMFILE; on Windows WSAEMFILE.
    const NO_DESCRIPTOR: [i32; 3] = [23, 24, 10_024];

    match UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
        Err(probe)
            if probe
                .raw_os_error()
                .is_some_and(|code| NO_DESCRIPTOR.contains(&code)) =>
        {
            Cause::NoDescriptor(probe)
        }
        _ => Cause::System(error),
    }
}

/// The error of a failed lookup.
#[derive(Clone, Debug)]
pub(super) struct LookupError {
    host: String,
    cause: Arc<Cause>,
}

#[derive(Debug)]
enum Cause {
    System(io::Error),
    NoAddress,
    TimedOut,
    NoThread(io::Error),
    NoDescriptor(io::Error),
    Panicked,
    NotThisMachine,
}

impl LookupError {
    fn new(host: String, cause: Cause) -> Self {
        Self {
            host,
            cause: Arc::new(cause),
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether the lookup failed because the process has no free thread or file descriptor. The name may be valid.
    pub(super) fn is_out_of_resources(&self) -> bool {
        matches!(*self.cause, Cause::NoThread(_) | Cause::NoDescriptor(_))
    }

    pub(super) fn text(&self) -> Text {
        let host = &self.host;
        match &*self.cause {
            Cause::System(error) => text!("{} cannot be resolved: {}", host, error),
            Cause::TimedOut => text!("{} cannot be resolved: no answer from the DNS server", host),
            Cause::NoAddress => text!("{} has no address", host),
            Cause::NoThread(error) => text!("no thread is available to resolve {}: {}", host, error),
            Cause::NoDescriptor(error) => {
                text!("no file descriptor is available to resolve {}: {}", host, error)
            }
            Cause::Panicked => text!("resolving {} panicked", host),
            Cause::NotThisMachine => text!(
                "{} resolves to another machine, but without {allow_http} http is permitted to this machine only",
                host
            ),
        }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl std::error::Error for LookupError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lookups_that_start_together_are_shared() {
        let resolver = SystemResolver::new(Rules::default(), Duration::from_secs(5));
        let (first, second) = (
            resolver.join_or_start("localhost"),
            resolver.join_or_start("localhost"),
        );
        assert!(first.ptr_eq(&second));
        assert!(!first.await.unwrap().is_empty());
        // A finished lookup is not joined, because the addresses may have changed.
        assert!(!resolver.join_or_start("localhost").ptr_eq(&second));
    }

    #[tokio::test]
    async fn hanging_lookups_are_limited_and_time_out() {
        let resolver = SystemResolver::new(Rules::default(), Duration::from_millis(10));
        let never = || -> Lookup { std::future::pending().boxed().shared() };
        let long_ago = Instant::now().checked_sub(JOINABLE_FOR).unwrap();
        let hung: Vec<_> = (0..MAX_PER_HOST).map(|_| (long_ago, never())).collect();
        let newest = hung.last().unwrap().1.clone();
        resolver
            .running
            .lock()
            .unwrap()
            .insert("hung.invalid".to_owned(), hung);
        assert!(resolver.join_or_start("hung.invalid").ptr_eq(&newest));

        let error = resolver
            .resolve("hung.invalid".parse().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "hung.invalid cannot be resolved: no answer from the DNS server"
        );
        // When a lookup ends, another one can start.
        resolver
            .running
            .lock()
            .unwrap()
            .get_mut("hung.invalid")
            .unwrap()
            .pop();
        assert!(!resolver.join_or_start("hung.invalid").ptr_eq(&newest));
    }

    #[tokio::test]
    async fn the_error_names_the_host() {
        let error = look_up("nowhere.invalid".to_owned(), Rules::default())
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("nowhere.invalid cannot be resolved: "),
            "{error}"
        );
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_loopback_only() {
        let rules = Rules {
            loopback_only: true,
            ..Rules::default()
        };
        let error = resolve("192.0.2.1".to_owned(), rules).unwrap_err();
        assert!(error.to_string().contains("allow_http"), "{error}");
        assert_eq!(resolve("127.0.0.1".to_owned(), rules).unwrap().len(), 1);
    }
}
