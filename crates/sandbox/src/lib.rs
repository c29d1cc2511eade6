//! A stand-in for the Feishu/Lark platform's feed card call (即时提醒), to try a client on and to test it.
//!
//! It is a small, strict model of the platform, not a list of canned answers: apps, tokens that age, chats
//! with members, frequency limits that bite, and for every wrong request the answer the platform documents.
//! Where the documentation leaves something open there is a [switch](Switches). A [script](Fault) makes things
//! go wrong, a [record](RecordedRequest) shows what the sandbox received.
//!
//! - [`Sandbox`]: the platform behind HTTP and HTTPS on a loopback port, in this process.
//! - [`Stage`]: the same without a socket, for tests on tokio's paused time.
//! - [`Model`]: the platform alone, a state machine without clock or chance.
//! - [`Control`]: everything that can be asked or told, as JSON. The server takes it as
//!   `POST /_sandbox/control`; `GET /_sandbox/state` and `GET /_sandbox/requests` are for a browser.

#![warn(clippy::missing_errors_doc, missing_debug_implementations)]

mod control;
mod deliver;
mod fault;
mod model;
mod record;
mod sandbox;
mod server;
mod stage;
mod tls;
mod wire;

pub use self::control::{Control, ControlError};
pub use self::deliver::Delivery;
pub use self::fault::{Fault, On, Reset};
pub use self::model::{
    App, AppKind, CALL_SCOPE, Chat, Interface, Model, SuccessShape, Switches, USER_ID_SCOPE, UnknownIds,
    User, World,
};
pub use self::record::RecordedRequest;
pub use self::sandbox::{Sandbox, SandboxBuilder};
pub use self::stage::Stage;

/// The example of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
