//! The local stand-in for the platform.

use std::cell::RefCell;

use feishu_feed_card_sandbox::{Sandbox, World};
use napi::bindgen_prelude::{Either, Error, Result};
use napi_derive::napi;

/// An error message.
#[napi(object, object_from_js = false)]
pub struct Refusal {
    pub refusal: String,
}

/// A running sandbox.
#[napi]
pub struct NativeSandbox {
    sandbox: RefCell<Option<Sandbox>>,
    /// `http://127.0.0.1:…`
    #[napi(readonly)]
    pub base_url: String,
    /// `https://127.0.0.1:…`. Absent without https.
    #[napi(readonly)]
    pub https_base_url: Option<String>,
    /// The certificate to trust for https.
    #[napi(readonly)]
    pub ca_pem: Option<String>,
}

/// Returns a sandbox's default initial state as JSON.
#[napi(catch_unwind)]
pub(crate) fn example_world() -> Result<String> {
    serde_json::to_string(&World::example()).map_err(|error| Error::from_reason(error.to_string()))
}

/// Starts a sandbox. `world` is its initial state as JSON.
#[napi(catch_unwind)]
pub(crate) fn start_sandbox(
    world: String,
    port: u16,
    https: bool,
    https_port: u16,
) -> Either<NativeSandbox, Refusal> {
    let world: World = match serde_json::from_str(&world) {
        Ok(world) => world,
        Err(error) => return refused(format!("invalid world: {error}")),
    };
    let started = Sandbox::builder()
        .world(world)
        .port(port)
        .https(https)
        .https_port(https_port)
        .start();
    match started {
        Ok(sandbox) => Either::A(NativeSandbox {
            base_url: sandbox.base_url(),
            https_base_url: sandbox.https_base_url(),
            ca_pem: sandbox.ca_pem().map(str::to_owned),
            sandbox: RefCell::new(Some(sandbox)),
        }),
        Err(error) => refused(format!("the sandbox cannot listen: {error}")),
    }
}

#[napi]
impl NativeSandbox {
    /// Runs a control. Argument and result are JSON.
    #[napi(catch_unwind)]
    pub fn control(&self, control: String) -> Either<String, Refusal> {
        match &*self.sandbox.borrow() {
            Some(sandbox) => match sandbox.control_json(&control) {
                Ok(value) => Either::A(value),
                Err(refusal) => Either::B(Refusal { refusal }),
            },
            None => refused("the sandbox was closed".to_owned()),
        }
    }

    /// Stops the server and closes its connections.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.sandbox.take();
    }
}

fn refused<T>(refusal: String) -> Either<T, Refusal> {
    Either::B(Refusal { refusal })
}
