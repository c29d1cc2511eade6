//! One `reqwest::Client` for each tokio runtime. A connection makes progress only while the runtime that opened it is
//! running, and a call must not wait for another runtime, which may be idle.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

type Build = Box<dyn Fn() -> reqwest::Result<reqwest::Client> + Send + Sync>;

/// The HTTP clients of one [`Client`](crate::Client).
pub(super) enum Clients {
    /// The client that the caller passed with `http_client`, for all runtimes.
    Given(reqwest::Client),
    /// A client for each runtime, built for its first call.
    PerRuntime { build: Build, built: Mutex<Vec<Built>> },
}

pub(super) struct Built {
    runtime: runtime::Id,
    client: reqwest::Client,
    /// Counts the clients that were built for this runtime.
    generation: u64,
    /// Whether one of the client's connections may have gone silent. If so, the next call gets a new client, and with it
    /// new connections.
    is_suspect: bool,
    /// Closed when the runtime shuts down, because that drops the task with the receiver.
    alive: oneshot::Sender<Infallible>,
}

impl Clients {
    /// Builds one client immediately, so that unusable options are reported.
    pub(super) fn per_runtime(
        build: impl Fn() -> reqwest::Result<reqwest::Client> + Send + Sync + 'static,
    ) -> reqwest::Result<Self> {
        build()?;
        Ok(Self::PerRuntime {
            build: Box::new(build),
            built: Mutex::default(),
        })
    }

    /// Returns the client of the current runtime, and a lease that identifies it.
    pub(super) fn current(&self) -> reqwest::Result<(reqwest::Client, Lease)> {
        let (build, mut clients) = match self {
            Self::Given(client) => return Ok((client.clone(), Lease(None))),
            Self::PerRuntime { build, built } => (build, lock(built)),
        };
        let runtime = Handle::current().id();
        if let Some(built) = clients.iter_mut().find(|built| built.runtime == runtime) {
            if built.is_suspect {
                built.client = build()?;
                built.generation += 1;
                built.is_suspect = false;
            }
            return Ok((built.client.clone(), Lease(Some((runtime, built.generation)))));
        }
        clients.retain(|built| !built.alive.is_closed());
        let client = build()?;
        let (alive, receiver) = oneshot::channel();
        tokio::spawn(receiver);
        clients.push(Built {
            runtime,
            client: client.clone(),
            generation: 0,
            is_suspect: false,
            alive,
        });
        Ok((client, Lease(Some((runtime, 0)))))
    }

    /// Marks the leased client as suspect, after a request on one of its connections got no response. All its pooled
    /// connections may have gone silent. Requests in progress keep their connections.
    pub(super) fn suspect(&self, lease: Lease) {
        let (Self::PerRuntime { built, .. }, Lease(Some((runtime, generation)))) = (self, lease) else {
            return;
        };
        let mut clients = lock(built);
        let current = clients
            .iter_mut()
            .find(|built| built.runtime == runtime && built.generation == generation);
        if let Some(current) = current {
            current.is_suspect = true;
        }
    }
}

/// Identifies the client of a request by its runtime and generation. `None` for the caller's client.
#[derive(Clone, Copy)]
pub(super) struct Lease(Option<(runtime::Id, u64)>);

fn lock(built: &Mutex<Vec<Built>>) -> MutexGuard<'_, Vec<Built>> {
    built.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tls::{self, ExtraCertificates};

    fn clients() -> Clients {
        let (tls, _) = tls::config(ExtraCertificates::default()).unwrap();
        let builder = move || reqwest::Client::builder().tls_backend_preconfigured(tls.clone());
        Clients::per_runtime(move || builder().no_proxy().build()).unwrap()
    }

    fn count(clients: &Clients) -> usize {
        match clients {
            Clients::Given(_) => 0,
            Clients::PerRuntime { built, .. } => lock(built).len(),
        }
    }

    fn on_a_new_runtime<T>(run: impl FnOnce() -> T) -> T {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { run() })
    }

    #[test]
    fn each_runtime_has_one_client_until_it_is_shut_down() {
        let clients = clients();
        let first = runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..2 {
            first.block_on(async { clients.current().unwrap() });
            assert_eq!(count(&clients), 1);
        }
        on_a_new_runtime(|| clients.current().unwrap());
        assert_eq!(count(&clients), 2);
        // The second runtime was shut down, so its client is removed.
        on_a_new_runtime(|| clients.current().unwrap());
        assert_eq!(count(&clients), 2);
    }

    #[test]
    fn a_suspect_client_is_replaced_once() {
        let clients = clients();
        on_a_new_runtime(|| {
            let generation = || clients.current().unwrap().1.0.unwrap().1;
            let (_, first) = clients.current().unwrap();
            clients.suspect(first);
            clients.suspect(first);
            assert_eq!(generation(), 1);
            // A late report about the first client does not concern the second one.
            clients.suspect(first);
            assert_eq!(generation(), 1);
        });
    }
}
