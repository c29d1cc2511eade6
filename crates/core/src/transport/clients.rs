//! One `reqwest::Client` for each tokio runtime: a connection is driven by the runtime that made it, and a call must
//! not wait for a runtime that nobody drives.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

type Build = Box<dyn Fn() -> reqwest::Result<reqwest::Client> + Send + Sync>;

/// The HTTP clients of one [`Client`](crate::Client).
pub(super) enum Clients {
    /// The caller's own, on every runtime.
    Given(reqwest::Client),
    /// Built when a runtime makes its first call.
    PerRuntime { build: Build, built: Mutex<Vec<Built>> },
}

pub(super) struct Built {
    runtime: runtime::Id,
    client: reqwest::Client,
    /// Counts the clients that this runtime has had.
    generation: u64,
    /// Closed when the runtime is shut down, which drops the task that holds the other end.
    alive: oneshot::Sender<Infallible>,
}

impl Clients {
    /// Builds one client at once, to report options that no client can be built from.
    pub(super) fn per_runtime(
        build: impl Fn() -> reqwest::Result<reqwest::Client> + Send + Sync + 'static,
    ) -> reqwest::Result<Self> {
        build()?;
        Ok(Self::PerRuntime {
            build: Box::new(build),
            built: Mutex::default(),
        })
    }

    /// The client of the runtime that this is called on, with its generation.
    pub(super) fn current(&self) -> reqwest::Result<(reqwest::Client, u64)> {
        let (build, mut clients) = match self {
            Self::Given(client) => return Ok((client.clone(), 0)),
            Self::PerRuntime { build, built } => (build, lock(built)),
        };
        let runtime = Handle::current().id();
        if let Some(built) = clients.iter().find(|built| built.runtime == runtime) {
            return Ok((built.client.clone(), built.generation));
        }
        clients.retain(|built| !built.alive.is_closed());
        let client = build()?;
        let (alive, ended) = oneshot::channel();
        tokio::spawn(ended);
        clients.push(Built {
            runtime,
            client: client.clone(),
            generation: 0,
            alive,
        });
        Ok((client, 0))
    }

    /// Replaces this runtime's client and with it every kept connection: one of them went silent, so all are suspect.
    /// Requests under way end on the connections that they have.
    pub(super) fn renew(&self, generation: u64) {
        let Self::PerRuntime { build, built } = self else {
            return;
        };
        let runtime = Handle::current().id();
        let mut built = lock(built);
        let current = built
            .iter_mut()
            .find(|built| built.runtime == runtime && built.generation == generation);
        if let Some(current) = current
            && let Ok(client) = build()
        {
            current.client = client;
            current.generation += 1;
        }
    }
}

fn lock(built: &Mutex<Vec<Built>>) -> MutexGuard<'_, Vec<Built>> {
    built.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tls::{self, OwnCertificates};

    fn clients() -> Clients {
        let (tls, _) = tls::config(OwnCertificates::default()).unwrap();
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
        // The second one is gone by now, and so is its client.
        on_a_new_runtime(|| clients.current().unwrap());
        assert_eq!(count(&clients), 2);
    }

    #[test]
    fn a_client_is_renewed_once_for_all_who_ask() {
        let clients = clients();
        on_a_new_runtime(|| {
            let (_, first) = clients.current().unwrap();
            clients.renew(first);
            clients.renew(first);
            let (_, second) = clients.current().unwrap();
            assert_eq!(second, first + 1);
        });
    }
}
