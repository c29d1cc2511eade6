//! A stand-in for the Feishu/Lark platform's time-sensitive feed card (即时提醒), for trying out and testing clients.
//!
//! It is a small, strict model of the platform and not a list of canned responses. It has apps, tokens that
//! expire, chats with members, and frequency limits. It answers every invalid request with the error that the
//! platform documents. [`Switches`] select the behaviour where the documentation is silent or contradicts itself.
//! A script of [`Fault`]s makes requests fail, and [`RecordedRequest`]s show what the sandbox received.
//!
//! - [`Sandbox`]: a server in this process, with HTTP and HTTPS on loopback ports.
//! - [`Stage`]: the same platform without sockets, for tests on tokio's paused clock.
//! - [`Model`]: the platform alone, a deterministic state machine without a clock.
//! - [`Control`]: all commands and queries as JSON. The server accepts them at `POST /_sandbox/control`.
//!   `GET /_sandbox/state` and `GET /_sandbox/requests` can be opened in a browser.

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
